package pod

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/env"
)

// mounts lists what a container sees besides its image: the shared files, the file for its termination message, and its volumes.
func (w *Worker) mounts(a attempt, variables []string) ([]container.Mount, error) {
	c := a.spec
	taken := make(map[string]bool, len(c.VolumeMounts))
	for _, m := range c.VolumeMounts {
		taken[path.Clean(m.MountPath)] = true
	}
	var out []container.Mount
	for _, shared := range [][2]string{{hostsFile, "/etc/hosts"}, {hostnameFile, "/etc/hostname"}, {resolvFile, "/etc/resolv.conf"}} {
		if !taken[shared[1]] {
			out = append(out, container.Mount{
				Source: filepath.Join(w.dir, shared[0]), Destination: shared[1], ReadOnly: readOnlyRoot(c) && shared[0] != hostsFile,
			})
		}
	}
	if target := terminationPath(c); !taken[target] {
		file, err := w.terminationFile(c.Name, a.id)
		if err != nil {
			return nil, err
		}
		out = append(out, container.Mount{Source: file, Destination: target})
	}
	for i := range c.VolumeMounts {
		m, err := volumeMount(a, &c.VolumeMounts[i], i, variables)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func volumeMount(a attempt, m *v1.VolumeMount, index int, variables []string) (container.Mount, error) {
	var v *v1.Volume
	for i := range a.pod.Spec.Volumes {
		if a.pod.Spec.Volumes[i].Name == m.Name {
			v = &a.pod.Spec.Volumes[i]
		}
	}
	if v == nil {
		return container.Mount{}, fmt.Errorf("cannot find volume %q to mount into container %q", m.Name, a.spec.Name)
	}
	out := container.Mount{Source: a.volumes.Path(v), Destination: m.MountPath, ReadOnly: m.ReadOnly || fromAPI(v)}
	sub := m.SubPath
	if m.SubPathExpr != "" {
		sub = env.ExpandAll([]string{m.SubPathExpr}, variables)[0]
		if strings.Contains(sub, "$(") {
			return out, fmt.Errorf("missing value for %q", m.SubPathExpr)
		}
	}
	if sub == "" {
		return out, nil
	}
	if path.IsAbs(sub) || strings.Contains("/"+sub+"/", "/../") {
		return out, fmt.Errorf("error SubPath `%s` must not be an absolute path or contain `..`", sub)
	}
	source, err := a.volumes.SubPath(out.Source, sub, a.spec.Name, index)
	if err != nil {
		return out, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", m.Name, a.spec.Name, err)
	}
	out.Source = source
	return out, nil
}

// fromAPI reports whether a volume shows API objects, which containers never write.
func fromAPI(v *v1.Volume) bool {
	return v.ConfigMap != nil || v.Secret != nil || v.Projected != nil || v.DownwardAPI != nil
}

func terminationPath(c *v1.Container) string {
	if c.TerminationMessagePath != "" {
		return path.Clean(c.TerminationMessagePath)
	}
	return v1.TerminationMessagePathDefault
}

// terminationFile makes the file for the termination message of an attempt. Any user of the container writes to it.
func (w *Worker) terminationFile(name, id string) (string, error) {
	dir := filepath.Join(w.dir, "containers", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making a directory for the termination message: %w", err)
	}
	file := filepath.Join(dir, id)
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		return "", fmt.Errorf("making the file for the termination message: %w", err)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		return "", fmt.Errorf("setting the mode of the file for the termination message: %w", err)
	}
	return file, nil
}
