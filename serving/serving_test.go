package serving_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving"
)

func TestAddToScheme(t *testing.T) {
	t.Parallel()
	scheme := runtime.NewScheme()
	if err := serving.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for _, o := range []runtime.Object{&servingv1.Service{}, &autoscalingv1alpha1.PodAutoscaler{}, &corev1.Pod{}} {
		if _, _, err := scheme.ObjectKinds(o); err != nil {
			t.Errorf("%T: %v", o, err)
		}
	}
}

func TestAddToManagerNeedsMesh(t *testing.T) {
	t.Parallel()
	if err := serving.AddToManager(nil, serving.Options{}); err == nil {
		t.Error("no error without a mesh")
	}
}
