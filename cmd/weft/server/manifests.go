package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/weft-dev/weft/config"
)

// fieldManager owns the fields that weft applies.
const fieldManager = "weft"

// configMap is the one kind of which what exists is left alone.
const configMap = "ConfigMap"

// applyLimit is how many objects are applied at once.
const applyLimit = 8

// resources maps the kinds in config/ to their resources. Asking the API's discovery would cost more than all else here.
func resources() map[string]schema.GroupVersionResource {
	rbac := schema.GroupVersion{Group: "rbac.authorization.k8s.io", Version: "v1"}
	return map[string]schema.GroupVersionResource{
		"CustomResourceDefinition": crds(),
		"Namespace":                {Version: "v1", Resource: "namespaces"},
		configMap:                  {Version: "v1", Resource: "configmaps"},
		"Service":                  {Version: "v1", Resource: "services"},
		"ServiceAccount":           {Version: "v1", Resource: "serviceaccounts"},
		"ClusterRole":              rbac.WithResource("clusterroles"),
		"ClusterRoleBinding":       rbac.WithResource("clusterrolebindings"),
	}
}

func crds() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
}

// applyManifests brings the API to what the binary contains, but for config maps, and returns when all definitions are established.
func applyManifests(ctx context.Context, access *rest.Config) error {
	client, err := dynamic.NewForConfig(access)
	if err != nil {
		return fmt.Errorf("making client for manifests: %w", err)
	}
	objects, err := readManifests(config.Core, config.CRDs)
	if err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(applyLimit)
	for _, object := range objects {
		if object.GetKind() != configMap {
			group.Go(func() error { return apply(groupCtx, client, object) })
		}
	}
	return group.Wait()
}

// createConfigMaps creates the config maps that are missing. Those that exist belong to the administrator. It comes after the
// webhooks, because those of the last run are asked for every write of a config map until they are registered anew.
func createConfigMaps(ctx context.Context, access *rest.Config) error {
	client, err := dynamic.NewForConfig(access)
	if err != nil {
		return fmt.Errorf("making client for config maps: %w", err)
	}
	objects, err := readManifests(config.Core)
	if err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(applyLimit)
	for _, object := range objects {
		if object.GetKind() == configMap {
			group.Go(func() error { return createMissing(groupCtx, client, object) })
		}
	}
	return group.Wait()
}

func createMissing(ctx context.Context, client dynamic.Interface, object *unstructured.Unstructured) error {
	objects := client.Resource(resources()[configMap]).Namespace(object.GetNamespace())
	_, err := objects.Get(ctx, object.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = objects.Create(ctx, object, metav1.CreateOptions{FieldManager: fieldManager})
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating config map %q: %w", object.GetName(), err)
	}
	return nil
}

func apply(ctx context.Context, client dynamic.Interface, object *unstructured.Unstructured) error {
	resource, ok := resources()[object.GetKind()]
	if !ok {
		return fmt.Errorf("applying %s %q: kind is not known here", object.GetKind(), object.GetName())
	}
	var objects dynamic.ResourceInterface = client.Resource(resource)
	if object.GetNamespace() != "" {
		objects = client.Resource(resource).Namespace(object.GetNamespace())
	}
	applied, err := objects.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if err != nil {
		return fmt.Errorf("applying %s %q: %w", object.GetKind(), object.GetName(), err)
	}
	if resource != crds() || established(applied) {
		return nil
	}
	return waitEstablished(ctx, objects, object.GetName())
}

// waitEstablished returns when the API serves a definition.
func waitEstablished(ctx context.Context, objects dynamic.ResourceInterface, name string) error {
	for {
		options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
		events, err := objects.Watch(ctx, options)
		if err != nil {
			return fmt.Errorf("watching definition %q: %w", name, err)
		}
		done, err := readUntilEstablished(ctx, events)
		events.Stop()
		if err != nil {
			return fmt.Errorf("waiting for definition %q: %w", name, err)
		}
		if done {
			return nil
		}
	}
}

// readUntilEstablished reports false when the watch ended early and must be made again.
func readUntilEstablished(ctx context.Context, events watch.Interface) (bool, error) {
	for {
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case event, open := <-events.ResultChan():
			if !open {
				return false, nil
			}
			if event.Type == watch.Error {
				return false, apierrors.FromObject(event.Object)
			}
			if object, ok := event.Object.(*unstructured.Unstructured); ok && established(object) {
				return true, nil
			}
		}
	}
}

func established(definition *unstructured.Unstructured) bool {
	conditions, _, err := unstructured.NestedSlice(definition.Object, "status", "conditions")
	if err != nil {
		return false
	}
	for _, c := range conditions {
		if condition, ok := c.(map[string]any); ok && condition["type"] == "Established" {
			return condition["status"] == string(metav1.ConditionTrue)
		}
	}
	return false
}

// readManifests decodes all documents of all files, in order.
func readManifests(sources ...fs.FS) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	for _, source := range sources {
		err := fs.WalkDir(source, ".", func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			data, err := fs.ReadFile(source, path)
			if err != nil {
				return err
			}
			decoded, err := decode(data)
			if err != nil {
				return fmt.Errorf("decoding %q: %w", path, err)
			}
			objects = append(objects, decoded...)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("reading manifests: %w", err)
		}
	}
	return objects, nil
}

func decode(data []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	const lookAhead = 4096
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), lookAhead); ; {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		switch {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, err
		case len(object.Object) > 0:
			objects = append(objects, object)
		}
	}
}
