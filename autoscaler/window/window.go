// Package window averages a load over the recent past. A load is a number that holds over time (requests in flight, requests per
// second); it is kept as its integral per second, so that reports of any length and from any number of proxies simply add up.
// The autoscaler keeps one Window per revision that has load. The package knows no clock and no other package of Weft.
package window

import (
	"math"
	"time"
)

// step is the length of one bucket.
const step = time.Second

// slack is how long ago the newest report may be while the load since then is unknown rather than zero. Proxies report every second.
const slack = time.Second

// Constants of the weighted average, as Knative's autoscaler has them.
const (
	weightPrecision = 0.9999
	minCoefficient  = 0.2
)

// Window holds one load over a span. The zero value is not valid. It is not safe for concurrent use.
type Window struct {
	span time.Duration
	// sums holds the integral of the load, in load-seconds, per bucket; bucket i of the clock is at i modulo the length.
	sums []float64
	// newest is the clock's number of the newest bucket that is valid in sums.
	newest int64
	// first and last bound what has been recorded; first starts anew after a span without load. loaded is the last time at which
	// there was any load.
	first, last, loaded time.Time
}

// New returns an empty Window that can average over at most span.
func New(span time.Duration) *Window {
	// One bucket more at each end, because the span seldom starts and ends at a full second.
	return &Window{span: span, sums: make([]float64, int(math.Ceil(span.Seconds()))+3)}
}

// Span is the longest time that the Window averages over.
func (w *Window) Span() time.Duration { return w.span }

// Resize changes the span and keeps what has been recorded as far as it fits.
func (w *Window) Resize(span time.Duration) {
	if span == w.span {
		return
	}
	next := New(span)
	next.newest, next.first, next.last, next.loaded = w.newest, w.first, w.last, w.loaded
	keep := int64(min(len(w.sums), len(next.sums)))
	for i := w.newest - keep + 1; i <= w.newest; i++ {
		next.sums[slot(i, len(next.sums))] = w.sums[slot(i, len(w.sums))]
	}
	if oldest := time.Unix(w.newest-keep+1, 0); !w.first.IsZero() && w.first.Before(oldest) {
		next.first = oldest
	}
	*w = *next
}

// Add records that the load was value from one time to another. Times older than the span, and reports without length, are ignored.
func (w *Window) Add(from, to time.Time, value float64) {
	if !to.After(from) || value < 0 || math.IsNaN(value) || math.IsInf(value, 0) {
		return
	}
	if w.Empty(from) && value > 0 {
		clear(w.sums)
		w.first, w.newest = from, to.Unix()
	}
	w.advance(to.Unix())
	oldest := time.Unix(w.newest-int64(len(w.sums))+1, 0)
	if from.Before(oldest) {
		from = oldest
	}
	for from.Before(to) {
		end := from.Truncate(step).Add(step)
		if end.After(to) {
			end = to
		}
		w.sums[slot(from.Unix(), len(w.sums))] += value * end.Sub(from).Seconds()
		if from.Before(w.first) {
			w.first = from
		}
		from = end
	}
	w.last = later(to, w.last)
	if value > 0 {
		w.loaded = later(to, w.loaded)
	}
}

// Begin says that there was no load from a time until the first record, where New and a span without load would begin with the record.
func (w *Window) Begin(from time.Time) {
	if oldest := w.first.Add(-w.span); from.Before(oldest) {
		from = oldest
	}
	if from.Before(w.first) {
		w.first = from
	}
}

// advance makes bucket newest valid, forgetting as many old ones.
func (w *Window) advance(newest int64) {
	if newest-w.newest >= int64(len(w.sums)) {
		clear(w.sums)
		w.newest = newest
	}
	for w.newest < newest {
		w.newest++
		w.sums[slot(w.newest, len(w.sums))] = 0
	}
}

// Empty tells whether there was no load within the span before now.
func (w *Window) Empty(now time.Time) bool { return !now.Before(w.Until()) }

// Until is when the Window will be empty if no more load comes.
func (w *Window) Until() time.Time {
	if w.loaded.IsZero() {
		return time.Time{}
	}
	return w.loaded.Add(w.span)
}

// horizon is the time up to which the load is known: silence for longer than slack means that there was none.
func (w *Window) horizon(now time.Time) time.Time {
	if known := now.Add(-slack); known.After(w.last) {
		return known
	}
	return w.last
}

// Mean is the plain average over the last part of the window that is over long. When less has been recorded, it is the average
// over what has been; without any record it is 0.
func (w *Window) Mean(now time.Time, over time.Duration) float64 {
	if w.Empty(now) {
		return 0
	}
	end := w.horizon(now)
	start := later(end.Add(-min(over, w.span)), w.first)
	length := end.Sub(start)
	if length <= 0 {
		return 0
	}
	return w.integral(start, end) / length.Seconds()
}

// Weighted is the average over the last part of the window in which each second counts a fixed share less than the one after it, so
// that it follows a change faster than Mean. The share is such that the seconds of the window together weigh 0.9999, and at least
// one fifth; seconds without record count as 0.
func (w *Window) Weighted(now time.Time, over time.Duration) float64 {
	if w.Empty(now) {
		return 0
	}
	seconds := math.Ceil(min(over, w.span).Seconds())
	coefficient := max(1-math.Pow(1-weightPrecision, 1/seconds), minCoefficient)
	end, weight, sum := w.horizon(now), coefficient, 0.0
	for range int(seconds) {
		start := later(end.Add(-step), w.first)
		if !end.After(start) {
			break
		}
		// The first second of a load is seldom a whole one.
		sum += weight * w.integral(start, end) / end.Sub(start).Seconds()
		weight *= 1 - coefficient
		end = end.Add(-step)
	}
	return sum
}

// integral sums the load between two times; buckets that lie partly outside count by their share.
func (w *Window) integral(start, end time.Time) float64 {
	sum := 0.0
	// After the last record there was nothing.
	if end.After(w.last) {
		end = w.last
	}
	for from := start; from.Before(end); {
		bucket := from.Truncate(step)
		to := bucket.Add(step)
		if to.After(end) {
			to = end
		}
		if i := bucket.Unix(); i <= w.newest && i > w.newest-int64(len(w.sums)) {
			sum += w.sums[slot(i, len(w.sums))] * to.Sub(from).Seconds() / w.covered(bucket)
		}
		from = to
	}
	return sum
}

// covered is how many seconds of a bucket the record can cover: all of it, except where the record begins or ends.
func (w *Window) covered(bucket time.Time) float64 {
	from, to := later(bucket, w.first), bucket.Add(step)
	if w.last.Before(to) && w.last.After(from) {
		to = w.last
	}
	return to.Sub(from).Seconds()
}

func slot(i int64, length int) int64 { return ((i % int64(length)) + int64(length)) % int64(length) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
