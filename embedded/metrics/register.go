package metrics

import (
	"context"
	"encoding/json"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	metricsapi "k8s.io/metrics/pkg/apis/metrics"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// Register makes the group known to clients and to the roles view, edit and admin, as metrics-server's manifests do.
func Register(ctx context.Context, access *rest.Config) error {
	client, err := dynamic.NewForConfig(access)
	if err != nil {
		return fmt.Errorf("making client for metrics.k8s.io: %w", err)
	}
	service, role := apiService(), reader()
	for _, o := range []struct {
		resource schema.GroupVersionResource
		name     string
		object   runtime.Object
	}{
		{apiregistration.SchemeGroupVersion.WithResource("apiservices"), service.Name, service},
		{rbacv1.SchemeGroupVersion.WithResource("clusterroles"), role.Name, role},
	} {
		data, err := json.Marshal(o.object)
		if err != nil {
			return fmt.Errorf("encoding %s %q: %w", o.resource.Resource, o.name, err)
		}
		_, err = client.Resource(o.resource).Patch(ctx, o.name, types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: "weft", Force: new(true)})
		if err != nil {
			return fmt.Errorf("applying %s %q: %w", o.resource.Resource, o.name, err)
		}
	}
	return nil
}

// apiService names no Service: the API server that has it serves the group itself.
func apiService() *apiregistration.APIService {
	const priority = 100
	version := v1beta1.SchemeGroupVersion
	return &apiregistration.APIService{
		TypeMeta:   metav1.TypeMeta{APIVersion: apiregistration.SchemeGroupVersion.String(), Kind: "APIService"},
		ObjectMeta: metav1.ObjectMeta{Name: version.Version + "." + version.Group},
		Spec: apiregistration.APIServiceSpec{
			Group: version.Group, Version: version.Version, GroupPriorityMinimum: priority, VersionPriority: priority,
		},
	}
}

func reader() *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{
		TypeMeta: metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRole"},
		ObjectMeta: metav1.ObjectMeta{Name: "system:aggregated-metrics-reader", Labels: map[string]string{
			"rbac.authorization.k8s.io/aggregate-to-view":  "true",
			"rbac.authorization.k8s.io/aggregate-to-edit":  "true",
			"rbac.authorization.k8s.io/aggregate-to-admin": "true",
		}},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{metricsapi.GroupName}, Resources: []string{"pods", "nodes"}, Verbs: []string{"get", "list", "watch"},
		}},
	}
}
