package scale

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"knative.dev/serving/pkg/apis/autoscaling"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/autoscaler/hpa"
	"github.com/weft-dev/weft/autoscaler/kpa"
	"github.com/weft-dev/weft/autoscaler/settings"
	"github.com/weft-dev/weft/serving/config"
)

// settle is how long the status of a revision that has just been woken may wait: most are Active by then, and meanwhile the API
// server has the instances to start.
const settle = time.Second

// Reconciler follows PodAutoscalers: it tells the Scaler what the API server knows, and the API server what the Scaler wants.
type Reconciler struct {
	client   client.Client
	scaler   *Scaler
	hpa      *hpa.Reconciler
	config   *config.Store
	recorder events.EventRecorder
	logger   *slog.Logger
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var pa autoscalingv1alpha1.PodAutoscaler
	if err := r.client.Get(ctx, req.NamespacedName, &pa); err != nil {
		if apierrors.IsNotFound(err) {
			r.scaler.Forget(req.NamespacedName)
			r.hpa.Forget(req.NamespacedName)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, fmt.Errorf("reading PodAutoscaler %q: %w", req, err)
	}
	if pa.DeletionTimestamp != nil {
		r.scaler.Forget(req.NamespacedName)
		r.hpa.Forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	switch pa.Class() {
	case autoscaling.KPA:
		if err := r.hpa.Release(ctx, &pa); err != nil {
			return ctrl.Result{}, err
		}
		return r.scale(ctx, &pa)
	case autoscaling.HPA:
		r.scaler.Forget(req.NamespacedName)
		return r.handOver(ctx, &pa)
	default:
		// Somebody else's: neither scaled nor reported on.
		r.scaler.Forget(req.NamespacedName)
		return ctrl.Result{}, r.hpa.Release(ctx, &pa)
	}
}

// scale has the Scaler decide.
func (r *Reconciler) scale(ctx context.Context, pa *autoscalingv1alpha1.PodAutoscaler) (ctrl.Result, error) {
	if pa.Spec.ScaleTargetRef.Kind != "Deployment" {
		return ctrl.Result{}, r.refuse(ctx, pa)
	}
	seen, err := r.look(ctx, pa)
	if err != nil {
		return ctrl.Result{}, err
	}
	status, changes := r.scaler.Observe(client.ObjectKeyFromObject(pa), seen)
	r.tell(pa, changes)
	if wait := settle - time.Since(status.Since); pa.Status.IsInactive() && status.Phase == kpa.Activating && wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	return ctrl.Result{}, r.write(ctx, pa, status)
}

// handOver leaves the decision to Kubernetes' own controller.
func (r *Reconciler) handOver(ctx context.Context, pa *autoscalingv1alpha1.PodAutoscaler) (ctrl.Result, error) {
	seen, err := r.look(ctx, pa)
	if err != nil {
		return ctrl.Result{}, err
	}
	next := pa.DeepCopy()
	begin(next)
	outcome, failed := r.hpa.Reconcile(ctx, next, hpa.Seen{Replicas: seen.Replicas, Ready: seen.Ready, Settings: seen.Settings})
	if err := errors.Join(r.update(ctx, pa, next), failed); err != nil {
		return ctrl.Result{}, err
	}
	if outcome.Replicas > 0 {
		if _, err := r.scaler.options.Patcher.Scale(ctx, seen.Target, outcome.Replicas); err != nil {
			return ctrl.Result{}, fmt.Errorf("waking %q: %w", pa.Name, err)
		}
		r.recorder.Eventf(pa, nil, corev1.EventTypeNormal, "ScaledUp", "Scale",
			"Scaled from 0 to %d: revisions of class %s do not scale to zero", outcome.Replicas, autoscaling.HPA)
	}
	return ctrl.Result{RequeueAfter: outcome.After}, nil
}

// look gathers what the API server knows of the revision.
func (r *Reconciler) look(ctx context.Context, pa *autoscalingv1alpha1.PodAutoscaler) (Observation, error) {
	c := r.config.Load()
	o := Observation{
		Target:   Target{Namespace: pa.Namespace, Name: pa.Spec.ScaleTargetRef.Name},
		Replicas: kpa.Unknown,
		Settings: settings.Of(pa, c.Autoscaler, c.Deployment.ProgressDeadline),
	}
	o.Phase, o.Since, o.Initialized = remembered(pa, time.Now())
	var deployment appsv1.Deployment
	err := r.client.Get(ctx, client.ObjectKey{Namespace: pa.Namespace, Name: o.Target.Name}, &deployment)
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return Observation{}, fmt.Errorf("reading deployment %q: %w", o.Target.Name, err)
	default:
		o.Replicas, o.Version = 1, deployment.ResourceVersion
		if deployment.Spec.Replicas != nil {
			o.Replicas = *deployment.Spec.Replicas
		}
	}
	var pods corev1.PodList
	err = r.client.List(ctx, &pods, client.InNamespace(pa.Namespace), client.MatchingLabels{serving.RevisionLabelKey: settings.Revision(pa)},
		client.UnsafeDisableDeepCopy)
	if err != nil {
		return Observation{}, fmt.Errorf("listing pods of revision %q: %w", pa.Name, err)
	}
	for i := range pods.Items {
		if canServe(&pods.Items[i]) {
			o.Ready++
		}
	}
	return o, nil
}

// canServe tells whether a pod is ready and stays.
func canServe(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil {
		return false
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// tell leaves an Event for each change of scale.
func (r *Reconciler) tell(pa *autoscalingv1alpha1.PodAutoscaler, changes []Event) {
	for _, change := range changes {
		reason := "ScaledDown"
		if change.Up {
			reason = "ScaledUp"
		}
		r.recorder.Eventf(pa, nil, corev1.EventTypeNormal, reason, "Scale", "%s", change.Note)
	}
}

// refuse reports a target that cannot be scaled.
func (r *Reconciler) refuse(ctx context.Context, pa *autoscalingv1alpha1.PodAutoscaler) error {
	r.scaler.Forget(client.ObjectKeyFromObject(pa))
	next := pa.DeepCopy()
	begin(next)
	next.Status.MarkInactive("UnsupportedScaleTarget",
		fmt.Sprintf("scaleTargetRef names a %s; only Deployments can be scaled.", pa.Spec.ScaleTargetRef.Kind))
	return r.update(ctx, pa, next)
}

// write brings the status up to date.
func (r *Reconciler) write(ctx context.Context, pa *autoscalingv1alpha1.PodAutoscaler, status Status) error {
	next := pa.DeepCopy()
	begin(next)
	render(next, status)
	return r.update(ctx, pa, next)
}

// update patches the status if it differs. There is no other writer, so a patch without a precondition loses nothing.
func (r *Reconciler) update(ctx context.Context, pa, next *autoscalingv1alpha1.PodAutoscaler) error {
	if equality.Semantic.DeepEqual(pa.Status, next.Status) {
		return nil
	}
	if err := r.client.Status().Patch(ctx, next, client.MergeFrom(pa)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("writing status of PodAutoscaler %q: %w", pa.Name, err)
	}
	return nil
}
