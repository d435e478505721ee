package pod

import (
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/status"
)

// plan is what to do next with the containers of a pod.
type plan struct {
	start, stop []*unit
	// crashed are containers that wait for the end of their back-off, with the message to show.
	crashed map[*unit]string
	// wake is when to plan again, zero for not before something happens.
	wake time.Time
	// over says that no container will be started again, because all have ended for good or initialisation failed.
	over bool
}

func (p *plan) wakeAt(t time.Time) {
	if p.wake.IsZero() || t.Before(p.wake) {
		p.wake = t
	}
}

// decide plans the next steps of a pod that is to run. It changes nothing.
func decide(pod *v1.Pod, order []*unit, now time.Time) plan {
	p := plan{crashed: map[*unit]string{}}
	if !p.initialized(pod, order, now) || p.over {
		return p
	}
	ended, regular := 0, 0
	for _, u := range order {
		switch u.role {
		case roleRegular:
			regular++
			if p.regular(pod, u, now) {
				ended++
			}
		case roleEphemeral:
			if u.Current == nil {
				p.begin(pod, u, now)
			}
		}
	}
	p.over = ended == regular
	return p
}

// initialized plans the init containers and sidecars and reports whether the regular containers may run.
func (p *plan) initialized(pod *v1.Pod, order []*unit, now time.Time) bool {
	before := slices.ContainsFunc(order, func(u *unit) bool { return u.role == roleRegular && u.Current != nil })
	for _, u := range order {
		if u.role != roleInit && u.role != roleSidecar {
			continue
		}
		if !p.initialize(pod, u, before, now) && !before || p.over {
			return false
		}
	}
	return true
}

// initialize plans one init container or sidecar and reports whether the ones after it may start.
func (p *plan) initialize(pod *v1.Pod, u *unit, initialized bool, now time.Time) bool {
	p.stopIfAsked(u)
	exited := u.Exited()
	if u.role == roleSidecar {
		if !u.IsRunning() {
			p.begin(pod, u, now)
		}
		return initialized || u.IsRunning() && u.Started
	}
	switch {
	case initialized:
		return true
	case exited != nil && exited.ExitCode == 0:
		return true
	case u.IsRunning():
		return false
	case exited != nil && !status.ShouldRestart(pod, u.spec, true, exited.ExitCode):
		p.over = true
		return false
	default:
		p.begin(pod, u, now)
		return false
	}
}

// regular plans one container and reports whether it has ended for good.
func (p *plan) regular(pod *v1.Pod, u *unit, now time.Time) bool {
	p.stopIfAsked(u)
	if u.IsRunning() {
		return false
	}
	if exited := u.Exited(); exited != nil && !status.ShouldRestart(pod, u.spec, false, exited.ExitCode) {
		return u.op == opNone
	}
	p.begin(pod, u, now)
	return false
}

func (p *plan) stopIfAsked(u *unit) {
	if u.IsRunning() && u.stop != nil && u.op == opNone {
		p.stop = append(p.stop, u)
	}
}

// begin plans the start of a container that should run, now or after its back-off.
func (p *plan) begin(pod *v1.Pod, u *unit, now time.Time) {
	if u.op != opNone || u.IsRunning() {
		return
	}
	if now.Before(u.retryAt) {
		p.wakeAt(u.retryAt)
		return
	}
	if exited := u.Exited(); exited != nil {
		if end, wait := u.crash.until(exited.FinishedAt, now); wait {
			p.crashed[u] = fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", u.crash.delay, u.spec.Name, describe(pod))
			p.wakeAt(end)
			return
		}
	}
	p.start = append(p.start, u)
}

// describe names a pod as kubelet's messages do.
func describe(pod *v1.Pod) string { return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID) }
