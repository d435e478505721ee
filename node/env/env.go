package env

import (
	"context"
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/weft-dev/weft/node/downward"
)

// Objects reads config maps and secrets. Implementations answer from a cache where they can; both methods may be called
// concurrently, the objects must not be changed, and a missing one is an API "not found" error.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
}

// Options are the sources of a container's environment.
type Options struct {
	Source downward.Source
	// Objects reads what the container refers to in its pod's namespace.
	Objects Objects
	// Services are the variables made by Services. The container's own win.
	Services map[string]string
}

// Make returns the environment of a container, KEY=value, sorted by name. Its errors are the messages of the reason
// CreateContainerConfigError.
func Make(ctx context.Context, c *v1.Container, o Options) ([]string, error) {
	m := maker{Options: o, container: c, values: map[string]string{}}
	for i := range c.EnvFrom {
		if err := m.from(ctx, &c.EnvFrom[i]); err != nil {
			return nil, err
		}
	}
	for i := range c.Env {
		value, ok, err := m.value(ctx, &c.Env[i])
		if err != nil {
			return nil, err
		}
		if ok {
			m.values[c.Env[i].Name] = value
		}
	}
	all := maps.Clone(o.Services)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, m.values)
	out := make([]string, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, name+"="+all[name])
	}
	return out, nil
}

type maker struct {
	Options
	container *v1.Container
	values    map[string]string
}

func (m *maker) lookup(name string) (string, bool) {
	if v, ok := m.values[name]; ok {
		return v, true
	}
	v, ok := m.Services[name]
	return v, ok
}

// from adds all keys of a config map or secret.
func (m *maker) from(ctx context.Context, f *v1.EnvFromSource) error {
	namespace := m.Source.Pod.Namespace
	switch {
	case f.ConfigMapRef != nil:
		cm, err := m.Objects.ConfigMap(ctx, namespace, f.ConfigMapRef.Name)
		if err != nil {
			return missing(err, f.ConfigMapRef.Optional)
		}
		for k, v := range cm.Data {
			m.values[f.Prefix+k] = v
		}
	case f.SecretRef != nil:
		s, err := m.Objects.Secret(ctx, namespace, f.SecretRef.Name)
		if err != nil {
			return missing(err, f.SecretRef.Optional)
		}
		for k, v := range s.Data {
			m.values[f.Prefix+k] = string(v)
		}
	}
	return nil
}

// value resolves one variable; ok is false for an optional one whose source is missing.
func (m *maker) value(ctx context.Context, e *v1.EnvVar) (value string, ok bool, err error) {
	switch {
	case e.Value != "" || e.ValueFrom == nil:
		return Expand(e.Value, m.lookup), true, nil
	case e.ValueFrom.FieldRef != nil:
		value, err = m.Source.Field(e.ValueFrom.FieldRef.FieldPath)
		return value, true, err
	case e.ValueFrom.ResourceFieldRef != nil:
		value, err = m.Source.Resource(e.ValueFrom.ResourceFieldRef, m.container.Name)
		return value, true, err
	case e.ValueFrom.ConfigMapKeyRef != nil:
		return m.configMapKey(ctx, e.ValueFrom.ConfigMapKeyRef)
	case e.ValueFrom.SecretKeyRef != nil:
		return m.secretKey(ctx, e.ValueFrom.SecretKeyRef)
	default:
		return "", false, fmt.Errorf("environment variable %s has a source that this node does not support", e.Name)
	}
}

func (m *maker) configMapKey(ctx context.Context, ref *v1.ConfigMapKeySelector) (string, bool, error) {
	namespace := m.Source.Pod.Namespace
	cm, err := m.Objects.ConfigMap(ctx, namespace, ref.Name)
	if err != nil {
		return "", false, missing(err, ref.Optional)
	}
	if value, ok := cm.Data[ref.Key]; ok || isTrue(ref.Optional) {
		return value, ok, nil
	}
	return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, namespace, ref.Name)
}

func (m *maker) secretKey(ctx context.Context, ref *v1.SecretKeySelector) (string, bool, error) {
	namespace := m.Source.Pod.Namespace
	s, err := m.Objects.Secret(ctx, namespace, ref.Name)
	if err != nil {
		return "", false, missing(err, ref.Optional)
	}
	if value, ok := s.Data[ref.Key]; ok || isTrue(ref.Optional) {
		return string(value), ok, nil
	}
	return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", ref.Key, namespace, ref.Name)
}

// missing forgives an object that does not exist when the reference is optional.
func missing(err error, optional *bool) error {
	if isTrue(optional) && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func isTrue(b *bool) bool { return b != nil && *b }
