package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/bench/record"
	"github.com/weft-dev/weft/node/container/monitor"
	"github.com/weft-dev/weft/test/platform"
)

// The stages of a cold start in their order. Those of the API are seen by a watch, so they include the time until a watcher hears
// of them, as every part of the platform does.
const (
	stageParked   = "parked in the proxy"
	stageWoken    = "wake sent to the autoscaler"
	stageDecided  = "decided: Deployment scaled"
	stageCreated  = "Pod created"
	stageBound    = "Pod bound to the node"
	stageStarted  = "container started"
	stageReady    = "Pod ready"
	stageEndpoint = "endpoint at the proxy"
	stageAnswered = "answered"
)

type stages struct {
	samples map[string][]time.Duration
}

func newStages() *stages { return &stages{samples: map[string][]time.Duration{}} }

// add takes the observations of one cold start that began at start.
func (s *stages) add(ctx context.Context, start time.Time, took time.Duration, o *observer) error {
	o.stop()
	at, err := o.proxyStages(ctx, start)
	if err != nil {
		return err
	}
	maps.Copy(at, o.seen)
	if at[stageStarted], err = o.containerStart(start); err != nil {
		return err
	}
	for name, t := range at {
		if d := t.Sub(start); d >= 0 {
			s.samples[name] = append(s.samples[name], d)
		}
	}
	s.samples[stageAnswered] = append(s.samples[stageAnswered], took)
	return nil
}

func (s *stages) summary() []record.Stage {
	var all []record.Stage
	for _, name := range []string{stageParked, stageWoken, stageDecided, stageCreated, stageBound, stageStarted, stageReady, stageEndpoint, stageAnswered} {
		all = append(all, record.NewStage(name, s.samples[name]))
	}
	return all
}

// observer notes when the API shows each step of one cold start.
type observer struct {
	platform *platform.Platform
	backend  string
	watches  []watch.Interface
	done     sync.WaitGroup

	mu   sync.Mutex // guards seen until stop has returned
	seen map[string]time.Time
}

// observe begins to watch the only revision of a service.
func observe(ctx context.Context, p *platform.Platform, service string) (*observer, error) {
	revision := service + "-00001"
	o := &observer{platform: p, backend: "revision/" + namespace + "/" + revision, seen: map[string]time.Time{}}
	selector := client.MatchingLabels{"serving.knative.dev/revision": revision}
	deployments, err := p.Kube.Watch(ctx, &appsv1.DeploymentList{}, client.InNamespace(namespace), selector)
	if err != nil {
		return nil, err
	}
	pods, err := p.Kube.Watch(ctx, &corev1.PodList{}, client.InNamespace(namespace), selector)
	if err != nil {
		deployments.Stop()
		return nil, err
	}
	o.watches = []watch.Interface{deployments, pods}
	for _, w := range o.watches {
		o.done.Go(func() {
			for event := range w.ResultChan() {
				o.note(event.Object, time.Now())
			}
		})
	}
	return o, nil
}

func (o *observer) note(object any, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := func(name string, happened bool) {
		if _, known := o.seen[name]; happened && !known {
			o.seen[name] = now
		}
	}
	switch object := object.(type) {
	case *appsv1.Deployment:
		first(stageDecided, object.Spec.Replicas != nil && *object.Spec.Replicas > 0)
	case *corev1.Pod:
		first(stageCreated, true)
		first(stageBound, object.Spec.NodeName != "")
		for _, c := range object.Status.Conditions {
			first(stageReady, c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue)
		}
	}
}

func (o *observer) stop() {
	for _, w := range o.watches {
		w.Stop()
	}
	o.done.Wait()
}

// containerStart asks the node agent's files for the container that was started since start.
func (o *observer) containerStart(start time.Time) (time.Time, error) {
	states, err := filepath.Glob(filepath.Join(o.platform.StateDir, "containers", "*", "status.json"))
	if err != nil {
		return time.Time{}, err
	}
	for _, path := range states {
		state, err := monitor.ReadState(filepath.Dir(path))
		if err != nil {
			return time.Time{}, err
		}
		if state.StartedAt.After(start) {
			return state.StartedAt, nil
		}
	}
	return time.Time{}, fmt.Errorf("none of %d containers was started since %s", len(states), start)
}

// coldStart is what the proxy notes of each cold start; times are Unix nanoseconds, zero for what did not happen.
type coldStart struct {
	Backend     string `json:"backend"`
	ParkedAt    int64  `json:"parked_at"`
	WakeSentAt  int64  `json:"wake_sent_at"`
	EndpointAt  int64  `json:"endpoint_at"`
	FirstByteAt int64  `json:"first_byte_at"`
}

// proxyStages asks the proxy for the cold start that it noted since start.
func (o *observer) proxyStages(ctx context.Context, start time.Time) (map[string]time.Time, error) {
	socket := filepath.Join(o.platform.StateDir, "run", "proxy.sock")
	admin := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://proxy/coldstarts", http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := admin.Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking the proxy for its cold starts: %w", err)
	}
	defer response.Body.Close()
	var all []coldStart
	if err := json.NewDecoder(response.Body).Decode(&all); err != nil {
		return nil, fmt.Errorf("reading the proxy's cold starts: %w", err)
	}
	at := map[string]time.Time{}
	for _, c := range all {
		if c.Backend != o.backend || c.ParkedAt < start.UnixNano() {
			continue
		}
		for name, nanos := range map[string]int64{stageParked: c.ParkedAt, stageWoken: c.WakeSentAt, stageEndpoint: c.EndpointAt} {
			if nanos != 0 {
				at[name] = time.Unix(0, nanos)
			}
		}
	}
	if len(at) == 0 {
		return nil, fmt.Errorf("the proxy noted no cold start of %s", o.backend)
	}
	return at, nil
}
