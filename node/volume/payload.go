package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"strings"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/weft-dev/weft/node/downward"
)

// defaultMode is that of the API for files of volumes whose mode is not given.
const defaultMode = 0o644

// file is one file of a data volume.
type file struct {
	data []byte
	mode int32
}

// payload reads all files of a data volume, by their path in the volume.
func (s *Set) payload(ctx context.Context, src downward.Source, v *v1.Volume) (map[string]file, error) {
	switch {
	case v.ConfigMap != nil:
		return s.configMap(ctx, src.Pod.Namespace, v.ConfigMap.Name, v.ConfigMap.Items, mode(v.ConfigMap.DefaultMode), v.ConfigMap.Optional)
	case v.Secret != nil:
		return s.secret(ctx, src.Pod.Namespace, v.Secret.SecretName, v.Secret.Items, mode(v.Secret.DefaultMode), v.Secret.Optional)
	case v.DownwardAPI != nil:
		return fields(src, v.DownwardAPI.Items, mode(v.DownwardAPI.DefaultMode))
	default:
		return s.projected(ctx, src, v)
	}
}

// projected merges its sources; they are read concurrently because a token takes a round trip that a cold start waits for.
func (s *Set) projected(ctx context.Context, src downward.Source, v *v1.Volume) (map[string]file, error) {
	parts := make([]map[string]file, len(v.Projected.Sources))
	group, ctx := errgroup.WithContext(ctx)
	for i, p := range v.Projected.Sources {
		group.Go(func() (err error) {
			parts[i], err = s.projection(ctx, src, v, p, i)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err //nolint:wrapcheck // the reader's own message is what users see
	}
	out := map[string]file{}
	for _, part := range parts {
		maps.Copy(out, part)
	}
	return out, nil
}

func (s *Set) projection(ctx context.Context, src downward.Source, v *v1.Volume, p v1.VolumeProjection, i int) (map[string]file, error) {
	def := mode(v.Projected.DefaultMode)
	switch {
	case p.ConfigMap != nil:
		return s.configMap(ctx, src.Pod.Namespace, p.ConfigMap.Name, p.ConfigMap.Items, def, p.ConfigMap.Optional)
	case p.Secret != nil:
		return s.secret(ctx, src.Pod.Namespace, p.Secret.Name, p.Secret.Items, def, p.Secret.Optional)
	case p.DownwardAPI != nil:
		return fields(src, p.DownwardAPI.Items, def)
	case p.ServiceAccountToken != nil:
		token, err := s.token(ctx, src.Pod, p.ServiceAccountToken, fmt.Sprintf("%s/%d", v.Name, i))
		if err != nil {
			return nil, err
		}
		if fsGroup(src.Pod) != nil {
			def = 0o600 // the group gets read access with the ownership
		}
		return map[string]file{p.ServiceAccountToken.Path: {data: token, mode: def}}, nil
	default:
		return nil, errors.New("the type of a projected source is not supported by this node")
	}
}

func (s *Set) configMap(
	ctx context.Context, namespace, name string, items []v1.KeyToPath, def int32, optional *bool,
) (map[string]file, error) {
	cm, err := s.options.Objects.ConfigMap(ctx, namespace, name)
	if err != nil {
		if isTrue(optional) && apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, err //nolint:wrapcheck // the API's own message is what users see
	}
	all := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, v := range cm.Data {
		all[k] = []byte(v)
	}
	maps.Copy(all, cm.BinaryData)
	return pick(all, items, def, isTrue(optional), "references non-existent config key: %s")
}

func (s *Set) secret(
	ctx context.Context, namespace, name string, items []v1.KeyToPath, def int32, optional *bool,
) (map[string]file, error) {
	secret, err := s.options.Objects.Secret(ctx, namespace, name)
	if err != nil {
		if isTrue(optional) && apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, err //nolint:wrapcheck // the API's own message is what users see
	}
	return pick(secret.Data, items, def, isTrue(optional), "references non-existent secret key: %s")
}

// pick selects and renames keys; without items all keys are files.
func pick(all map[string][]byte, items []v1.KeyToPath, def int32, optional bool, missing string) (map[string]file, error) {
	out := make(map[string]file, len(all))
	if items == nil {
		for k, data := range all {
			out[k] = file{data: data, mode: def}
		}
		return out, nil
	}
	for _, item := range items {
		data, ok := all[item.Key]
		if !ok {
			if optional {
				continue
			}
			return nil, fmt.Errorf(missing, item.Key)
		}
		if err := validPath(item.Path); err != nil {
			return nil, err
		}
		m := def
		if item.Mode != nil {
			m = *item.Mode
		}
		out[path.Clean(item.Path)] = file{data: data, mode: m}
	}
	return out, nil
}

func fields(src downward.Source, items []v1.DownwardAPIVolumeFile, def int32) (map[string]file, error) {
	out := make(map[string]file, len(items))
	for _, item := range items {
		value, err := "", error(nil)
		switch {
		case item.FieldRef != nil:
			value, err = src.Field(item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = src.Resource(item.ResourceFieldRef, item.ResourceFieldRef.ContainerName)
		}
		if err != nil {
			return nil, err //nolint:wrapcheck // names the field already
		}
		if err := validPath(item.Path); err != nil {
			return nil, err
		}
		m := def
		if item.Mode != nil {
			m = *item.Mode
		}
		out[path.Clean(item.Path)] = file{data: []byte(value), mode: m}
	}
	return out, nil
}

// validPath repeats the API's validation, because a file outside of the volume would be a file of the host.
func validPath(p string) error {
	if p == "" || path.IsAbs(p) || strings.HasPrefix(p, "..") || strings.Contains("/"+p+"/", "/../") {
		return fmt.Errorf("invalid path in a volume: %q", p)
	}
	return nil
}

func mode(m *int32) int32 {
	if m == nil {
		return defaultMode
	}
	return *m
}

func isTrue(b *bool) bool { return b != nil && *b }
