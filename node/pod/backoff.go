package pod

import "time"

// backoff is a pause that doubles with every use and starts again when it was not used for twice its maximum. It is kubelet's
// rule for restarts and pulls.
type backoff struct {
	base, max time.Duration
	delay     time.Duration
	used      time.Time
}

// next doubles the pause; at is the time of the failure.
func (b *backoff) next(at, now time.Time) {
	if b.expired(at) {
		b.delay = b.base
	} else {
		b.delay = min(2*b.delay, b.max)
	}
	b.used = now
}

// until returns when the pause that began at from ends; ok is false when no pause is due.
func (b *backoff) until(from, now time.Time) (end time.Time, ok bool) {
	if b.expired(from) {
		return time.Time{}, false
	}
	end = from.Add(b.delay)
	return end, now.Before(end)
}

func (b *backoff) expired(at time.Time) bool { return b.delay == 0 || at.Sub(b.used) > 2*b.max }
