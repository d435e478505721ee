package scale

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/weft-dev/weft/autoscaler/hpa"
	"github.com/weft-dev/weft/internal/events"
	"github.com/weft-dev/weft/serving/config"
	"github.com/weft-dev/weft/serving/owned"
)

// concurrency is how many PodAutoscalers are reconciled at a time; each spends its time waiting for the API server.
const concurrency = 4

// Queue carries keys from the Scaler to the controller. The zero value works. Changed may be called before the controller has started.
type Queue struct {
	queue atomic.Pointer[workqueue.TypedRateLimitingInterface[reconcile.Request]]
}

// Start implements source.Source.
func (q *Queue) Start(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	q.queue.Store(&queue)
	return nil
}

// Changed has the PodAutoscaler of that name reconciled. Before the controller starts it does nothing: then all are reconciled anyway.
func (q *Queue) Changed(key types.NamespacedName) {
	if queue := q.queue.Load(); queue != nil {
		(*queue).Add(reconcile.Request{NamespacedName: key})
	}
}

// SetUp adds the controller of PodAutoscalers to mgr.
func SetUp(mgr ctrl.Manager, scaler *Scaler, queue *Queue, store *config.Store, logger *slog.Logger) error {
	recorder := events.NewRecorder(mgr, "weft-autoscaler")
	r := &Reconciler{
		client: mgr.GetClient(), scaler: scaler, config: store, recorder: recorder, logger: logger,
		hpa: hpa.New(owned.Store{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Events: recorder}, time.Now),
	}
	err := ctrl.NewControllerManagedBy(mgr).Named("podautoscaler").
		For(&autoscalingv1alpha1.PodAutoscaler{}, builder.WithPredicates(predicate.Or[client.Object](
			predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}, predicate.LabelChangedPredicate{}))).
		Owns(&autoscalingv2.HorizontalPodAutoscaler{}).
		Watches(&appsv1.Deployment{}, handler.EnqueueRequestsFromMapFunc(ofRevision), builder.WithPredicates(scaleChanged())).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(ofRevision), builder.WithPredicates(readinessChanged())).
		WatchesRawSource(source.Channel(store.Changes(config.AutoscalerName, config.DeploymentName),
			handler.EnqueueRequestsFromMapFunc(r.all))).
		WatchesRawSource(queue).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrency}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the controller of PodAutoscalers: %w", err)
	}
	return nil
}

// ofRevision maps a Deployment or Pod to the PodAutoscaler of its revision, which has the same name.
func ofRevision(_ context.Context, o client.Object) []reconcile.Request {
	name := o.GetLabels()[serving.RevisionLabelKey]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
}

// all maps a change of configuration to every PodAutoscaler.
func (r *Reconciler) all(ctx context.Context, _ client.Object) []reconcile.Request {
	var list autoscalingv1alpha1.PodAutoscalerList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		r.logger.Error("listing PodAutoscalers after a change of configuration", "error", err)
		return nil
	}
	requests := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		requests[i].NamespacedName = client.ObjectKeyFromObject(&list.Items[i])
	}
	return requests
}

// scaleChanged passes changes of a Deployment's replicas; its status is of no interest.
func scaleChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*appsv1.Deployment)
		after, also := e.ObjectNew.(*appsv1.Deployment)
		return !ok || !also || before.Generation != after.Generation
	}}
}

// readinessChanged passes changes of whether a pod can serve.
func readinessChanged() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool {
			pod, ok := e.Object.(*corev1.Pod)
			return ok && canServe(pod)
		},
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok := e.ObjectOld.(*corev1.Pod)
			after, also := e.ObjectNew.(*corev1.Pod)
			return !ok || !also || canServe(before) != canServe(after)
		},
	}
}
