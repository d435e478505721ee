package main

import (
	"context"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/bench/record"
	"github.com/weft-dev/weft/test/platform"
)

const (
	image     = "dev.local/hello:bench"
	namespace = "default"
	// readyLimit is how long one service may take before the benchmark gives up.
	readyLimit = time.Minute
)

// ready measures services that must start an instance before they are ready.
func ready(ctx context.Context, p *platform.Platform, n int, result *record.Result) error {
	took, err := createMany(ctx, p, n, "started-%d", map[string]string{"autoscaling.knative.dev/window": "6s"})
	if err != nil {
		return err
	}
	p50 := record.Percentile(took, 0.5)
	result.Bars = append(result.Bars, record.Bar{
		Name: "create to Ready, image present, instance started, p50", Unit: "ms", Measured: record.Millis(p50), Limit: barReadyMillis,
	})
	result.Notes = append(result.Notes, fmt.Sprintf("%d services with an instance: create to Ready p95 %s, max %s.",
		n, record.Percentile(took, 0.95).Round(time.Millisecond), record.Percentile(took, 1).Round(time.Millisecond)))
	return nil
}

// atZero measures services that never start an instance.
func atZero(ctx context.Context, p *platform.Platform, n int, result *record.Result) error {
	if err := allowZero(ctx, p); err != nil {
		return err
	}
	before, err := measureHeap(ctx, p)
	if err != nil {
		return err
	}
	began := time.Now()
	took, err := createMany(ctx, p, n, "zero-%d", map[string]string{"autoscaling.knative.dev/initial-scale": "0"})
	if err != nil {
		return err
	}
	total := time.Since(began)
	after, err := measureHeap(ctx, p)
	if err != nil {
		return err
	}
	fifth := max(n/5, 1)
	first, last := record.Percentile(took[:fifth], 0.5), record.Percentile(took[n-fifth:], 0.5)
	perService := after.minus(before).dividedBy(n)
	result.Bars = append(result.Bars,
		record.Bar{
			Name: fmt.Sprintf("create to Ready at zero, last %d of %d over first %d", fifth, n, fifth), Unit: "x",
			Measured: float64(last) / float64(first), Limit: barGrowth,
		},
		record.Bar{
			Name: "heap of the control plane per service at zero, beyond the API server's store and caches", Unit: "KB",
			Measured: perService.controllers / 1e3, Limit: barServiceKB,
		})
	result.Notes = append(result.Notes,
		fmt.Sprintf("%d services at zero, one after the other: all ready after %s; create to Ready p50 %s for the first %d, %s for the last %d, max %s.",
			n, total.Round(100*time.Millisecond), first.Round(time.Millisecond), fifth, last.Round(time.Millisecond), fifth, record.Percentile(took, 1).Round(time.Millisecond)),
		fmt.Sprintf("The API server's store and caches hold %.0f KB per service. Afterwards the control plane has %.0f MiB resident, the proxy %.0f MiB.",
			perService.apiServer/1e3, after.controlMiB, after.proxyMiB))
	return nil
}

// allowZero lets revisions be ready without ever having had an instance.
func allowZero(ctx context.Context, p *platform.Platform) error {
	const name = "config-autoscaler"
	data := map[string]string{"allow-zero-initial-scale": "true"}
	err := p.Kube.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "knative-serving", Name: name}, Data: data})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "knative-serving", Name: name}}
	return p.Kube.Patch(ctx, m, client.RawPatch("application/merge-patch+json", []byte(`{"data":{"allow-zero-initial-scale":"true"}}`)))
}

// createMany creates services one after the other, each when the one before is ready, and returns the time that each took.
func createMany(ctx context.Context, p *platform.Platform, n int, name string, annotations map[string]string) ([]time.Duration, error) {
	took := make([]time.Duration, 0, n)
	for i := range n {
		d, err := create(ctx, p, fmt.Sprintf(name, i), annotations)
		if err != nil {
			return nil, err
		}
		took = append(took, d)
		if (i+1)%50 == 0 || i+1 == n {
			fmt.Fprintf(os.Stderr, "%d of %d services ready, the last after %s\n", i+1, n, d.Round(time.Millisecond))
		}
	}
	return took, nil
}

// create creates a service and returns the time until a watch has shown it ready.
func create(ctx context.Context, p *platform.Platform, name string, annotations map[string]string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	s := &servingv1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}}
	s.Spec.Template.Annotations = annotations
	s.Spec.Template.Spec.Containers = []corev1.Container{{Image: image}}
	watch, err := p.Kube.Watch(ctx, &servingv1.ServiceList{}, client.InNamespace(namespace), client.MatchingFields{"metadata.name": name})
	if err != nil {
		return 0, err
	}
	defer watch.Stop()
	start := time.Now()
	// Of a request that the admission webhooks were not there for, the annotations could not be trusted: a failure is one.
	if err := p.Kube.Create(ctx, s); err != nil {
		return 0, fmt.Errorf("creating service %s: %w", name, err)
	}
	for {
		select {
		case event, open := <-watch.ResultChan():
			if !open {
				return 0, fmt.Errorf("service %s: the watch ended before it was ready", name)
			}
			if seen, ok := event.Object.(*servingv1.Service); ok && seen.IsReady() {
				return time.Since(start), nil
			}
		case <-ctx.Done():
			state, _ := p.Weft("kubectl", "-n", namespace, "describe", "ksvc", name)
			return 0, fmt.Errorf("service %s is not ready after %s\n%s", name, readyLimit, state)
		}
	}
}
