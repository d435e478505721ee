package server

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
)

func TestSetClusterDomain(t *testing.T) {
	t.Setenv("CLUSTER_DOMAIN", "corp.example")
	if err := setClusterDomain(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		want bool
	}{
		{name: "www.cluster.local", want: false},
		{name: "www.corp.example", want: true},
	} {
		mapping := &servingv1beta1.DomainMapping{ObjectMeta: metav1.ObjectMeta{Name: tt.name}}
		const refusal = "must not be a subdomain of cluster local domain"
		if got := !strings.Contains(mapping.Validate(t.Context()).Error(), refusal); got != tt.want {
			t.Errorf("a DomainMapping %s is permitted: %v, want %v", tt.name, got, tt.want)
		}
	}
}
