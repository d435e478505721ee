package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/env"
	"github.com/weft-dev/weft/node/image"
	"github.com/weft-dev/weft/node/status"
)

// defaultPath is the search path of images that do not set one.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Namespaces of the machine, for pods that share them. The first process is always in them.
const (
	hostNet = "/proc/1/ns/net"
	hostIPC = "/proc/1/ns/ipc"
	hostUTS = "/proc/1/ns/uts"
)

// makeSpec describes a container to the runtime.
func (w *Worker) makeSpec(ctx context.Context, a attempt, img image.Image) (container.Spec, *startError) {
	bad := func(err error) *startError {
		return &startError{reason: status.CreateContainerConfigErr, message: err.Error()}
	}
	c := a.spec
	variables, err := w.environment(ctx, a, img)
	if err != nil {
		return container.Spec{}, bad(err)
	}
	spec := container.Spec{
		ID: a.id, Labels: labels(a, img), Layers: img.Layers, ReadOnlyRoot: readOnlyRoot(c), Privileged: privileged(c),
		Process: container.Process{
			Args: command(c, img, variables), Env: variables, Cwd: cwd(c, img), Stdin: c.Stdin, TTY: c.TTY,
		},
		Resources: resources(a.pod, c, w.o.MemoryBytes), LogPath: a.log,
	}
	spec.Resources.CgroupPath = filepath.Join(Cgroup(a.pod), a.id)
	if len(spec.Process.Args) == 0 {
		return spec, &startError{reason: status.CreateContainerError, message: "no command specified"}
	}
	if err := secure(&spec.Process, a.pod, c, img.Config); err != nil {
		return spec, bad(err)
	}
	if a.pod.Spec.HostPID || a.pod.Spec.ShareProcessNamespace != nil && *a.pod.Spec.ShareProcessNamespace {
		return spec, bad(errors.New("sharing process namespaces is not supported by this node"))
	}
	join(&spec, a)
	if spec.Mounts, err = w.mounts(a, variables); err != nil {
		return spec, bad(err)
	}
	if err := os.MkdirAll(filepath.Dir(a.log), 0o755); err != nil {
		return spec, bad(fmt.Errorf("making the directory of logs: %w", err))
	}
	return spec, nil
}

// join puts a container in the namespaces of its pod, or of the machine where the pod asks for it.
func join(spec *container.Spec, a attempt) {
	if box := a.sandbox; box != nil {
		spec.NetNS, spec.IPCNS, spec.UTSNS = box.NetNS, box.IPCNS, box.UTSNS
	}
	if a.pod.Spec.HostNetwork {
		spec.NetNS, spec.UTSNS = hostNet, hostUTS
	}
	if a.pod.Spec.HostIPC {
		spec.IPCNS = hostIPC
	}
}

func labels(a attempt, img image.Image) map[string]string {
	return map[string]string{
		LabelNamespace: a.pod.Namespace, LabelPod: a.pod.Name, LabelUID: string(a.pod.UID), LabelContainer: a.spec.Name,
		LabelAttempt: strconv.Itoa(int(a.number)), LabelImage: img.Name, LabelImageID: imageID(img),
		LabelSignal: strconv.Itoa(stopSignal(a.spec, img)),
	}
}

// environment is that of the image, overridden by the container's.
func (w *Worker) environment(ctx context.Context, a attempt, img image.Image) ([]string, error) {
	services, err := w.o.Objects.Services(ctx)
	if err != nil {
		return nil, fmt.Errorf("services have not yet been read at least once, cannot construct envvars: %w", err)
	}
	links := a.pod.Spec.EnableServiceLinks == nil || *a.pod.Spec.EnableServiceLinks
	own, err := env.Make(ctx, a.spec, env.Options{
		Source: a.source, Objects: w.o.Objects, Services: env.Services(services, a.pod.Namespace, links),
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // the message that users see
	}
	var out []string
	if !slices.ContainsFunc(img.Config.Env, func(s string) bool { return strings.HasPrefix(s, "PATH=") }) {
		out = append(out, defaultPath)
	}
	out = append(out, "HOSTNAME="+hostname(a.pod, w.o.ClusterDomain))
	return append(append(out, img.Config.Env...), own...), nil
}

// command is the container's, or where it gives none the image's. Arguments of the image belong to its own command only.
func command(c *v1.Container, img image.Image, variables []string) []string {
	entrypoint, args := env.ExpandAll(c.Command, variables), env.ExpandAll(c.Args, variables)
	if len(entrypoint) > 0 {
		return append(entrypoint, args...)
	}
	if len(args) == 0 {
		args = img.Config.Cmd
	}
	return append(slices.Clone(img.Config.Entrypoint), args...)
}

func cwd(c *v1.Container, img image.Image) string {
	for _, dir := range []string{c.WorkingDir, img.Config.WorkingDir} {
		if dir != "" {
			return dir
		}
	}
	return "/"
}

// stopSignal is the signal that ends a container gracefully, from its spec or its image, zero for SIGTERM.
func stopSignal(c *v1.Container, img image.Image) int {
	name := img.Config.StopSignal
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		name = string(*c.Lifecycle.StopSignal)
	}
	if n, err := strconv.Atoi(name); err == nil {
		return n
	}
	name = strings.ToUpper(name)
	if name != "" && !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	return int(unix.SignalNum(name))
}

// Cgroup is the cgroup in which each container of a pod has its own, below the instance's.
func Cgroup(p *v1.Pod) string { return "pod" + string(p.UID) }
