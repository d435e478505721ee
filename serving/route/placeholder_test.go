package route

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	corev1 "k8s.io/api/core/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the expected output of the golden files")

// TestPlaceholder builds the placeholders of the route in the golden file. Run it with -update to renew the rest of the file.
func TestPlaceholder(t *testing.T) {
	t.Parallel()
	const file = "testdata/placeholder.txtar"
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r := &servingv1.Route{}
	if err := yaml.UnmarshalStrict(archive.Files[0].Data, r); err != nil {
		t.Fatal(err)
	}
	got := []txtar.File{archive.Files[0]}
	for _, tag := range []string{"", "next"} {
		s, err := with(t, 0, nil).Placeholder(r, tag)
		if err != nil {
			t.Fatal(err)
		}
		data, err := yaml.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, txtar.File{Name: s.Name + ".yaml", Data: data})
	}
	if *update {
		archive.Files = got
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(txtar.Format(archive)), string(txtar.Format(&txtar.Archive{Comment: archive.Comment, Files: got}))); diff != "" {
		t.Errorf("placeholders (-want +got):\n%s", diff)
	}
}

func TestUpdatePlaceholder(t *testing.T) {
	t.Parallel()
	r := &servingv1.Route{}
	r.Namespace, r.Name, r.UID = "default", "hello", "uid"
	want, err := with(t, 0, nil).Placeholder(r, "")
	if err != nil {
		t.Fatal(err)
	}
	have := want.DeepCopy()
	have.Labels["user"] = "x"
	have.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	if got := updatePlaceholder(have, want); got != nil {
		t.Errorf("what others add makes an update:\n%s", cmp.Diff(have, got))
	}
	have.Spec.ExternalName = "elsewhere.example.com"
	got := updatePlaceholder(have, want)
	if got == nil || got.Spec.ExternalName != DefaultLocalGateway || got.Labels["user"] != "x" {
		t.Errorf("update is %v, want the gateway and the label of the user", got)
	}

	have = want.DeepCopy()
	have.Spec.Type, have.Spec.ExternalName, have.Spec.ClusterIP = corev1.ServiceTypeClusterIP, "", "10.0.0.7"
	if got := updatePlaceholder(have, want); got == nil || got.Spec.Type != corev1.ServiceTypeExternalName || got.Spec.ClusterIP != "" {
		t.Errorf("update of another type is %v, want nothing of that type left", got)
	}
}
