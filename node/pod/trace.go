package pod

import (
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
)

// trace takes the time of the stages of a pod's first start, because each of them is part of a cold start that somebody waits for.
type trace struct {
	begin time.Time
	ready bool

	// mu guards marks, which operations set.
	mu    sync.Mutex
	marks []any
}

// mark notes that a stage has ended, in milliseconds since the pod was seen.
func (t *trace) mark(stage string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.marks) < 32 {
		t.marks = append(t.marks, slog.Float64(stage, float64(time.Since(t.begin).Microseconds())/1000))
	}
}

// observe logs the stages when the pod becomes ready for the first time.
func (t *trace) observe(s *v1.PodStatus, _ time.Time, log *slog.Logger) {
	if t.ready || !isReady(s) {
		return
	}
	t.ready = true
	t.mark("ready")
	t.mu.Lock()
	defer t.mu.Unlock()
	log.Debug("Pod became ready, stages in milliseconds", t.marks...)
}

func isReady(s *v1.PodStatus) bool {
	for _, c := range s.Conditions {
		if c.Type == v1.PodReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}
