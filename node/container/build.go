package container

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ociVersion is old enough for the runtimes of long-lived distributions (crun 1.8, runc 1.1), which refuse a newer one.
const ociVersion = "1.0.2"

// defaultPath is PATH for an image that sets none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// build makes the OCI configuration of a container. Defaults are those of containerd's CRI plugin, so that an image sees what it
// sees under Kubernetes.
func (r *OCI) build(spec Spec, root *root) (*specs.Spec, error) {
	// The OCI runtimes do not say which mount lacks its source.
	for _, m := range spec.Mounts {
		if m.Source == "" {
			continue
		}
		if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) {
			message := fmt.Sprintf("mounting %q to %q: no such file or directory", m.Source, m.Destination)
			return nil, &StartError{ExitCode: codeOther, Message: message}
		}
	}
	process, err := r.buildProcess(spec, root)
	if err != nil {
		return nil, err
	}
	devices, err := buildDevices(spec.Privileged)
	if err != nil {
		return nil, err
	}
	oci := &specs.Spec{
		Version: ociVersion,
		Root:    &specs.Root{Path: rootFolder, Readonly: spec.ReadOnlyRoot},
		Process: process,
		Mounts:  buildMounts(spec),
		Linux: &specs.Linux{
			CgroupsPath: r.cgroups.path(spec.Resources.CgroupPath),
			Namespaces:  buildNamespaces(spec, r.cgroups.v2),
			Resources:   r.cgroups.resources(spec.Resources, spec.Privileged),
			Devices:     devices,
		},
	}
	if spec.UTSNS != "" {
		oci.Hostname = spec.Hostname
	}
	if !spec.Privileged {
		oci.Linux.MaskedPaths, oci.Linux.ReadonlyPaths = maskedPaths(), readonlyPaths()
	}
	return oci, nil
}

func (r *OCI) buildProcess(spec Spec, root *root) (*specs.Process, error) {
	p := spec.Process
	if len(p.Args) == 0 {
		return nil, &StartError{ExitCode: codeOther, Message: "no command specified"}
	}
	user, err := resolveUser(p, root)
	if err != nil {
		return nil, &StartError{ExitCode: codeOther, Message: err.Error()}
	}
	cwd := cmp.Or(p.Cwd, "/")
	if !filepath.IsAbs(cwd) {
		return nil, &StartError{ExitCode: codeOther, Message: fmt.Sprintf("working directory %q is not absolute", cwd)}
	}
	// A mount below may hold the directory; that one in the root is then covered and does no harm.
	if err := root.mkdirAll(cwd); err != nil {
		return nil, &StartError{ExitCode: codeOther, Message: fmt.Sprintf("making working directory %q: %v", cwd, err)}
	}
	caps, err := capabilities(p, spec.Privileged)
	if err != nil {
		return nil, &StartError{ExitCode: codeOther, Message: err.Error()}
	}
	score := max(spec.Resources.OOMScoreAdj, r.minOOMScore)
	return &specs.Process{
		Terminal:        p.TTY,
		Args:            p.Args,
		Env:             buildEnv(spec, user.home),
		Cwd:             cwd,
		User:            user.User,
		NoNewPrivileges: p.NoNewPrivileges,
		OOMScoreAdj:     &score,
		// No ambient and no inheritable ones: a process that is not root has a capability only by its executable.
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
	}, nil
}

// buildEnv puts the defaults before the given variables and keeps the last of each name.
func buildEnv(spec Spec, home string) []string {
	env := []string{"PATH=" + defaultPath, "HOME=" + home}
	if spec.Process.TTY {
		env = append(env, "TERM=xterm")
	}
	if spec.Hostname != "" && spec.UTSNS != "" {
		env = append(env, "HOSTNAME="+spec.Hostname)
	}
	env = append(env, spec.Process.Env...)
	last := make(map[string]int, len(env))
	for i, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		last[name] = i
	}
	kept := env[:0]
	for i, kv := range env {
		if name, _, _ := strings.Cut(kv, "="); last[name] == i {
			kept = append(kept, kv)
		}
	}
	return kept
}

func buildNamespaces(spec Spec, v2 bool) []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace, Path: spec.IPCNS}}
	if spec.NetNS != "" {
		ns = append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: spec.NetNS})
	}
	if spec.UTSNS != "" {
		ns = append(ns, specs.LinuxNamespace{Type: specs.UTSNamespace, Path: spec.UTSNS})
	}
	if v2 && !spec.Privileged {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return ns
}

// buildMounts returns the file systems that every container has and those of the spec, parents first. A mount of the spec replaces
// a default one at the same place.
func buildMounts(spec Spec) []specs.Mount {
	sys := "ro"
	if spec.Privileged {
		sys = "rw"
	}
	defaults := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{
			Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"},
		},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", sys}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", sys}},
	}
	replaced := map[string]bool{}
	for _, m := range spec.Mounts {
		replaced[filepath.Clean(m.Destination)] = true
	}
	mounts := slices.DeleteFunc(defaults, func(m specs.Mount) bool { return replaced[m.Destination] })
	for _, m := range spec.Mounts {
		mounts = append(mounts, buildMount(m))
	}
	slices.SortStableFunc(mounts, func(a, b specs.Mount) int { return cmp.Compare(depth(a.Destination), depth(b.Destination)) })
	return mounts
}

func buildMount(m Mount) specs.Mount {
	mode := "rw"
	if m.ReadOnly {
		mode = "ro"
	}
	destination := filepath.Clean(m.Destination)
	if m.Source != "" {
		return specs.Mount{Destination: destination, Type: "bind", Source: m.Source, Options: []string{"rbind", "rprivate", mode}}
	}
	options := []string{"nosuid", "nodev", "mode=0777", mode}
	if m.SizeBytes > 0 {
		options = append(options, fmt.Sprintf("size=%d", m.SizeBytes))
	}
	return specs.Mount{Destination: destination, Type: "tmpfs", Source: "tmpfs", Options: options}
}

func depth(path string) int { return strings.Count(path, string(os.PathSeparator)) }

func maskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
		"/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
