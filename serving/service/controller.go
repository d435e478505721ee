// Package service reconciles serving.knative.dev Services: each becomes a Configuration and a Route of the same name, and
// reports what they report. serving.AddToManager calls it. It must not know revisions, Deployments or the mesh.
package service

import (
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// Name is the name of the controller, in its metrics and logs.
const Name = "service"

// AddToManager runs the reconciler with the manager.
func AddToManager(mgr manager.Manager, r *Reconciler, options controller.Options) error {
	return builder.ControllerManagedBy(mgr).Named(Name).
		For(&servingv1.Service{}).
		Owns(&servingv1.Configuration{}).
		Owns(&servingv1.Route{}).
		WithOptions(options).
		Complete(r)
}
