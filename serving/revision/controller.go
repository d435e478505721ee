// Package revision reconciles serving.knative.dev Revisions: each becomes a Deployment and a PodAutoscaler, and reports
// whether it can serve, from what those and its pods report. serving.AddToManager calls it. It must not know routes or the
// mesh: whether a revision has traffic it reads from the labels that the labeler keeps.
package revision

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Name is the name of the controller, in its metrics and logs.
const Name = "revision"

const podsByRevision = "serving/revision.pods"

// AddIndexes adds the indexes that the reconciler reads by.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	if err := indexer.IndexField(ctx, &corev1.Pod{}, podsByRevision, func(o client.Object) []string {
		if name := o.GetLabels()[serving.RevisionLabelKey]; name != "" {
			return []string{name}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("indexing pods by revision: %w", err)
	}
	return nil
}

// AddToManager runs the reconciler with the manager. Each of sources names revisions to look at for other reasons than a
// change of theirs.
func AddToManager(mgr manager.Manager, r *Reconciler, options controller.Options, sources ...source.Source) error {
	b := builder.ControllerManagedBy(mgr).Named(Name).
		For(&servingv1.Revision{}).
		Owns(&appsv1.Deployment{}).
		Owns(&autoscalingv1alpha1.PodAutoscaler{}).
		// Pods say why an instance does not come long before the Deployment does.
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(ofPod)).
		WithOptions(options)
	for _, s := range sources {
		b = b.WatchesRawSource(s)
	}
	return b.Complete(r)
}

// ofPod maps a pod to its revision.
func ofPod(_ context.Context, pod client.Object) []reconcile.Request {
	name := pod.GetLabels()[serving.RevisionLabelKey]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: pod.GetNamespace(), Name: name}}}
}
