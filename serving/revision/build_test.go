package revision

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"knative.dev/serving/pkg/apis/autoscaling"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/yaml"

	"github.com/weft-dev/weft/serving/config"
)

var update = flag.Bool("update", false, "write the expected output of the golden files")

// TestGolden builds the objects of the revision in each file, under the config maps in it, and compares them with the rest of
// the file. Run it with -update to renew that.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			golden(t, file)
		})
	}
}

func golden(t *testing.T, file string) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rev, maps := &servingv1.Revision{}, map[string]map[string]string{}
	want := map[string]string{}
	inputs := 0
	for _, f := range archive.Files {
		switch {
		case f.Name == "revision.yaml":
			err = yaml.UnmarshalStrict(f.Data, rev)
			inputs++
		case strings.HasPrefix(f.Name, "config-"):
			data := map[string]string{}
			err = yaml.UnmarshalStrict(f.Data, &data)
			maps[strings.TrimSuffix(f.Name, ".yaml")] = data
			inputs++
		default:
			want[f.Name] = string(f.Data)
		}
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
	}
	snapshot, err := config.Parse(maps, config.Domains{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := Deployment(rev, snapshot)
	if err != nil {
		t.Fatal(err)
	}
	outputs := []txtar.File{
		{Name: "deployment.yaml", Data: marshal(t, d)},
		{Name: "podautoscaler.yaml", Data: marshal(t, PodAutoscaler(rev, d, snapshot))},
	}
	if *update {
		archive.Files = append(archive.Files[:inputs:inputs], outputs...)
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, out := range outputs {
		if diff := cmp.Diff(want[out.Name], string(out.Data)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", out.Name, diff)
		}
	}
}

func marshal(t *testing.T, o any) []byte {
	t.Helper()
	data, err := yaml.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// plain is a revision with one container.
func plain() *servingv1.Revision {
	r := &servingv1.Revision{}
	r.Namespace, r.Name, r.UID = "default", "hello-00001", "uid"
	r.Spec.Containers = []corev1.Container{{Name: "user-container", Image: "example.com/hello"}}
	return r
}

func build(t *testing.T, r *servingv1.Revision, maps map[string]map[string]string) *appsv1.Deployment {
	t.Helper()
	snapshot, err := config.Parse(maps, config.Domains{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := Deployment(r, snapshot)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		probe *corev1.Probe
		want  corev1.Probe
	}{
		{name: "none", want: corev1.Probe{ProbeHandler: tcp(8080), PeriodSeconds: 1, SuccessThreshold: 1, TimeoutSeconds: 1}},
		{
			name: "defaulted by admission", probe: &corev1.Probe{ProbeHandler: tcp(0), SuccessThreshold: 1},
			want: corev1.Probe{ProbeHandler: tcp(8080), PeriodSeconds: 1, SuccessThreshold: 1, TimeoutSeconds: 1},
		},
		{
			name:  "another port",
			probe: &corev1.Probe{ProbeHandler: tcp(9000), PeriodSeconds: 5, TimeoutSeconds: 4, FailureThreshold: 6, SuccessThreshold: 1},
			want:  corev1.Probe{ProbeHandler: tcp(9000), PeriodSeconds: 5, TimeoutSeconds: 4, FailureThreshold: 6, SuccessThreshold: 1},
		},
		{
			name:  "http",
			probe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready"}}},
			want: corev1.Probe{
				ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(8080)}},
				PeriodSeconds: 1, SuccessThreshold: 1, TimeoutSeconds: 1,
			},
		},
		{
			name: "http with a scheme in small letters",
			probe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
				HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(9000), Scheme: "http"},
			}},
			want: corev1.Probe{
				ProbeHandler: corev1.ProbeHandler{
					HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(9000), Scheme: corev1.URISchemeHTTP},
				},
				PeriodSeconds: 1, SuccessThreshold: 1, TimeoutSeconds: 1,
			},
		},
		{
			name:  "grpc",
			probe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{}}},
			want: corev1.Probe{
				ProbeHandler:  corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080}},
				PeriodSeconds: 1, SuccessThreshold: 1, TimeoutSeconds: 1,
			},
		},
		{
			name:  "exec",
			probe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}},
			want: corev1.Probe{
				ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}},
				PeriodSeconds: 1, SuccessThreshold: 1, TimeoutSeconds: 1,
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := plain()
			r.Spec.Containers[0].ReadinessProbe = tt.probe
			before := r.DeepCopy()
			got := build(t, r, nil).Spec.Template.Spec.Containers[0].ReadinessProbe
			if diff := cmp.Diff(&tt.want, got); diff != "" {
				t.Errorf("readiness probe (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, r); diff != "" {
				t.Errorf("the revision was changed (-before +after):\n%s", diff)
			}
		})
	}
}

// TestReadinessOfOthers wants a container that does not serve to be ready by its own probe, with the period of the serving one.
func TestReadinessOfOthers(t *testing.T) {
	t.Parallel()
	r := plain()
	r.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 8080}}
	r.Spec.Containers = append(r.Spec.Containers,
		corev1.Container{Name: "probed", ReadinessProbe: &corev1.Probe{ProbeHandler: tcp(9000), SuccessThreshold: 1}}, corev1.Container{Name: "plain"})
	got := build(t, r, nil).Spec.Template.Spec.Containers
	want := &corev1.Probe{ProbeHandler: tcp(9000), PeriodSeconds: 1, SuccessThreshold: 1, TimeoutSeconds: 1}
	if diff := cmp.Diff(want, got[1].ReadinessProbe); diff != "" {
		t.Errorf("readiness probe (-want +got):\n%s", diff)
	}
	if got[2].ReadinessProbe != nil {
		t.Errorf("a container without a probe got %v", got[2].ReadinessProbe)
	}
}

func tcp(port int32) corev1.ProbeHandler {
	return corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}}
}

func TestLivenessPort(t *testing.T) {
	t.Parallel()
	r := plain()
	r.Spec.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: tcp(9000)}
	port := func(maps map[string]map[string]string) int {
		return build(t, r, maps).Spec.Template.Spec.Containers[0].LivenessProbe.TCPSocket.Port.IntValue()
	}
	if got := port(nil); got != 8080 {
		t.Errorf("liveness probe goes to port %d, want the serving port 8080", got)
	}
	if got := port(map[string]map[string]string{"config-features": {"multi-container-probing": "enabled"}}); got != 9000 {
		t.Errorf("with multi-container-probing the liveness probe goes to port %d, want the user's 9000", got)
	}
}

func TestInitialScale(t *testing.T) {
	t.Parallel()
	maps := map[string]map[string]string{"config-autoscaler": {"initial-scale": "3"}}
	r := plain()
	if got := *build(t, r, maps).Spec.Replicas; got != 3 {
		t.Errorf("replicas are %d, want the configured 3", got)
	}
	r.Annotations = map[string]string{autoscaling.InitialScaleAnnotationKey: "5"}
	if got := *build(t, r, maps).Spec.Replicas; got != 5 {
		t.Errorf("replicas are %d, want the 5 of the annotation", got)
	}
	// A 0 may have been accepted before the key was switched off.
	r.Annotations[autoscaling.InitialScaleAnnotationKey] = "0"
	if got := *build(t, r, maps).Spec.Replicas; got != 3 {
		t.Errorf("replicas are %d, want the configured 3 where 0 is not allowed", got)
	}
	maps["config-autoscaler"]["allow-zero-initial-scale"] = "true"
	if got := *build(t, r, maps).Spec.Replicas; got != 0 {
		t.Errorf("replicas are %d, want the 0 of the annotation", got)
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	have := build(t, plain(), nil)
	have.Spec.Replicas = new(int32(7))
	have.Annotations = map[string]string{"deployment.kubernetes.io/revision": "1"}
	have.Spec.Template.Annotations = map[string]string{"kubectl.kubernetes.io/restartedAt": "now", "serving.knative.dev/old": "x"}

	if got := Update(have, build(t, plain(), nil)); got != nil {
		t.Errorf("a Deployment that is as wanted is updated:\n%s", cmp.Diff(have, got))
	}
	scaled := plain()
	scaled.Annotations = map[string]string{autoscaling.InitialScaleAnnotationKey: "4"}
	if got := Update(have, build(t, scaled, nil)); got != nil {
		t.Errorf("another initial scale updates the Deployment:\n%s", cmp.Diff(have, got))
	}
	routed := plain()
	routed.Labels = map[string]string{serving.RoutingStateLabelKey: "reserve"}
	routed.Annotations = map[string]string{serving.RoutesAnnotationKey: "hello"}
	if got := Update(have, build(t, routed, nil)); got != nil {
		t.Errorf("traffic updates the Deployment:\n%s", cmp.Diff(have, got))
	}

	changed := plain()
	changed.Labels = map[string]string{"team": "blue"}
	got := Update(have, build(t, changed, nil))
	if got == nil {
		t.Fatal("a new label does not update the Deployment")
	}
	if *got.Spec.Replicas != 7 {
		t.Errorf("replicas are %d, want 7: the number belongs to the autoscaler", *got.Spec.Replicas)
	}
	if got.Annotations["deployment.kubernetes.io/revision"] != "1" || got.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] != "now" {
		t.Errorf("annotations of others are gone: %v and %v", got.Annotations, got.Spec.Template.Annotations)
	}
	if _, ok := got.Spec.Template.Annotations["serving.knative.dev/old"]; ok {
		t.Error("an annotation that the revision no longer has stays")
	}
}

func TestReachability(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name            string
		state           servingv1.RoutingState
		failed          bool
		replicas, ready int32
		want            autoscalingv1alpha1.ReachabilityType
	}{
		{name: "active", state: servingv1.RoutingStateActive, want: autoscalingv1alpha1.ReachabilityReachable},
		{name: "reserve", state: servingv1.RoutingStateReserve, want: autoscalingv1alpha1.ReachabilityUnreachable},
		{name: "pending", state: servingv1.RoutingStatePending, want: autoscalingv1alpha1.ReachabilityUnknown},
		{name: "failing", state: servingv1.RoutingStateActive, failed: true, replicas: 1, want: autoscalingv1alpha1.ReachabilityUnreachable},
		{name: "failing at zero", state: servingv1.RoutingStateActive, failed: true, want: autoscalingv1alpha1.ReachabilityReachable},
		{name: "failing in part", state: servingv1.RoutingStateActive, failed: true, replicas: 2, ready: 1, want: autoscalingv1alpha1.ReachabilityReachable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := plain()
			r.Labels = map[string]string{serving.RoutingStateLabelKey: string(tt.state)}
			if tt.failed {
				r.Status.MarkContainerHealthyFalse("ExitCode1", "")
			}
			d := &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Replicas: &tt.replicas}, Status: appsv1.DeploymentStatus{ReadyReplicas: tt.ready}}
			if got := reachability(r, d); got != tt.want {
				t.Errorf("reachability is %q, want %q", got, tt.want)
			}
		})
	}
}

func TestScaling(t *testing.T) {
	t.Parallel()
	have := map[string]string{
		autoscaling.MinScaleAnnotationKey: "2", autoscaling.ClassAnnotationKey: autoscaling.KPA, autoscaling.MetricAnnotationKey: "concurrency", "other": "x",
	}
	want := map[string]string{
		autoscaling.MaxScaleAnnotationKey: "5", autoscaling.ClassAnnotationKey: autoscaling.KPA, autoscaling.MetricAnnotationKey: "concurrency", "other": "x",
	}
	got := scaling(have, map[string]string{autoscaling.MaxScaleAnnotationKey: "5"})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
}
