package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/bench/record"
	"github.com/weft-dev/weft/test/platform"
)

const (
	image     = "dev.local/hello:bench"
	namespace = "default"
	// settle is how long the platform is left alone between two cold starts, so that one does not pay for the other's cleaning up.
	settle = time.Second
)

// sequence measures cold starts one after the other.
func sequence(ctx context.Context, p *platform.Platform, runs int, result *record.Result) error {
	s, err := deploy(ctx, p, "hello")
	if err != nil {
		return err
	}
	stages := newStages()
	var total []time.Duration
	for i := range runs {
		if err := waitZero(ctx, p, "hello"); err != nil {
			return err
		}
		watch, err := observe(ctx, p, "hello")
		if err != nil {
			return err
		}
		start := time.Now()
		err = get(ctx, p, s)
		took := time.Since(start)
		if err != nil {
			watch.stop()
			return fmt.Errorf("run %d: %w", i+1, err)
		}
		total = append(total, took)
		if err := stages.add(ctx, start, took, watch); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "cold start %d of %d: %s\n", i+1, runs, took.Round(time.Millisecond))
	}
	result.Bars = append(result.Bars,
		record.Bar{Name: "one cold start, p50", Unit: "ms", Measured: record.Millis(record.Percentile(total, 0.5)), Limit: barP50Millis},
		record.Bar{Name: "one cold start, p95", Unit: "ms", Measured: record.Millis(record.Percentile(total, 0.95)), Limit: barP95Millis})
	result.Stages = stages.summary()
	return nil
}

// atOnce measures n services that are woken in the same moment.
func atOnce(ctx context.Context, p *platform.Platform, n int, result *record.Result) error {
	services := make([]*servingv1.Service, n)
	for i := range services {
		s, err := deploy(ctx, p, fmt.Sprintf("burst-%d", i))
		if err != nil {
			return err
		}
		services[i] = s
	}
	for _, s := range services {
		if err := waitZero(ctx, p, s.Name); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "%d cold starts at once\n", n)
	took := make([]time.Duration, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i, s := range services {
		wg.Go(func() {
			start := time.Now()
			errs[i] = get(ctx, p, s)
			took[i] = time.Since(start)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cold starts at once: %w", err)
	}
	result.Bars = append(result.Bars, record.Bar{
		Name: fmt.Sprintf("%d cold starts at once, p95", n), Unit: "ms", Measured: record.Millis(record.Percentile(took, 0.95)), Limit: barBurstP95Millis,
	})
	result.Notes = append(result.Notes, fmt.Sprintf("%d at once: all answered, p50 %s, max %s.", n, record.Percentile(took, 0.5).Round(time.Millisecond), record.Percentile(took, 1).Round(time.Millisecond)))
	return nil
}

// deploy creates a service that goes to zero quickly and waits until it is ready.
func deploy(ctx context.Context, p *platform.Platform, name string) (*servingv1.Service, error) {
	s := &servingv1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}}
	s.Spec.Template.Annotations = map[string]string{"autoscaling.knative.dev/window": "6s"}
	s.Spec.Template.Spec.Containers = []corev1.Container{{Image: image}}
	if err := p.Kube.Create(ctx, s); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := platform.Poll(ctx, func() error {
		if err := p.Kube.Get(ctx, client.ObjectKeyFromObject(s), s); err != nil {
			return err
		}
		if !s.IsReady() {
			return fmt.Errorf("service %s is not ready: %v", name, s.Status.Conditions)
		}
		return nil
	})
	return s, err
}

// waitZero waits until a service has no pod and the platform has been left alone for a moment.
func waitZero(ctx context.Context, p *platform.Platform, name string) error {
	limit, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err := platform.Poll(limit, func() error {
		var pods corev1.PodList
		if err := p.Kube.List(limit, &pods, client.InNamespace(namespace), client.MatchingLabels{"serving.knative.dev/service": name}); err != nil {
			return err
		}
		if len(pods.Items) > 0 {
			return fmt.Errorf("%s still has %d pods", name, len(pods.Items))
		}
		return nil
	})
	if err != nil {
		state, _ := p.Weft("kubectl", "-n", namespace, "get", "kpa,deployments,pods", "-o", "wide")
		return fmt.Errorf("waiting for zero: %w\n%s", err, state)
	}
	select {
	case <-time.After(settle):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func get(ctx context.Context, p *platform.Platform, s *servingv1.Service) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Status.URL.String(), http.NoBody)
	if err != nil {
		return err
	}
	response, err := p.HTTP.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %d: %s", s.Name, response.StatusCode, body)
	}
	return err
}

// memory measures the resident memory of the idle platform.
func memory(p *platform.Platform, result *record.Result) error {
	proxy, err := p.ProxyPID()
	if err != nil {
		return err
	}
	for _, process := range []struct {
		name  string
		pid   int
		limit float64
	}{{"control plane at idle, RSS", p.PID(), barControlMiB}, {"proxy at idle, RSS", proxy, barProxyMiB}} {
		mib, err := platform.RSS(process.pid)
		if err != nil {
			return err
		}
		result.Bars = append(result.Bars, record.Bar{Name: process.name, Unit: "MiB", Measured: mib, Limit: process.limit})
	}
	return nil
}
