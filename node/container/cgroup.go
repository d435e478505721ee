package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/internal/instance"
)

// cgroupMount is where every distribution mounts the hierarchies.
const cgroupMount = "/sys/fs/cgroup"

// cgroups is how this machine limits resources: version 2, or version 1 with a hierarchy per controller. A hybrid is version 1,
// because its controllers are there.
type cgroups struct {
	v2     bool
	parent string
	// hierarchies are the directories that contain the instance's parent: one for version 2.
	hierarchies []string
	// swap says that the kernel limits memory and swap together (version 1) or swap (version 2).
	swap bool
	// hide is the path of a mount that makes crun refuse to start containers, or empty.
	hide string
}

func detectCgroups(i instance.Instance) (cgroups, error) {
	c := cgroups{parent: i.CgroupParent()}
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupMount, &st); err != nil {
		return c, fmt.Errorf("finding cgroups: %w", err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		c.v2, c.hierarchies, c.swap = true, []string{cgroupMount}, true
		return c, nil
	}
	entries, err := os.ReadDir(cgroupMount)
	if err != nil {
		return c, fmt.Errorf("listing cgroup hierarchies: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			c.hierarchies = append(c.hierarchies, filepath.Join(cgroupMount, e.Name()))
		}
	}
	// crun insists that no controller is left to version 2 in a hybrid, even one that no container uses, as hugetlb.
	unified := filepath.Join(cgroupMount, "unified")
	if controllers, err := os.ReadFile(filepath.Join(unified, "cgroup.controllers")); err == nil && len(controllers) > 1 {
		c.hide = unified
	}
	_, err = os.Stat(filepath.Join(cgroupMount, "memory", "memory.memsw.limit_in_bytes"))
	c.swap = err == nil
	return c, nil
}

// path is the cgroup of a container as the OCI configuration names it.
func (c cgroups) path(container string) string { return filepath.Join(c.parent, container) }

// oomEvents is the file that counts the processes that the kernel killed for the container's memory limit.
func (c cgroups) oomEvents(container string) string {
	if c.v2 {
		return filepath.Join(cgroupMount, c.path(container), "memory.events")
	}
	return filepath.Join(cgroupMount, "memory", c.path(container), "memory.oom_control")
}

// resources translates limits. Swap is limited to the same as memory, which means none: a container that swaps is slower than one
// that is restarted.
func (c cgroups) resources(res Resources, privileged bool) *specs.LinuxResources {
	out := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: privileged, Access: "rwm"}}}
	if res.CPUShares > 0 || res.CPUQuota > 0 {
		out.CPU = &specs.LinuxCPU{}
		if res.CPUShares > 0 {
			out.CPU.Shares = &res.CPUShares
		}
		if res.CPUQuota > 0 {
			out.CPU.Quota = &res.CPUQuota
			if res.CPUPeriod > 0 {
				out.CPU.Period = &res.CPUPeriod
			}
		}
	}
	if res.MemoryLimit > 0 {
		out.Memory = &specs.LinuxMemory{Limit: &res.MemoryLimit}
		if c.swap {
			out.Memory.Swap = &res.MemoryLimit
		}
	}
	if res.PidsLimit > 0 {
		out.Pids = &specs.LinuxPids{Limit: &res.PidsLimit}
	}
	return out
}

// remove deletes a container's cgroup and its parents up to the instance's, as far as they are empty. The OCI runtime removes
// the innermost one, when it knows the container.
func (c cgroups) remove(container string) error {
	var errs []error
	for _, hierarchy := range c.hierarchies {
		for dir := filepath.Clean(container); dir != "." && dir != "/"; dir = filepath.Dir(dir) {
			err := unix.Rmdir(filepath.Join(hierarchy, c.path(dir)))
			if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
				break // another container of the pod
			}
			if err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("removing cgroup %q: %w", c.path(dir), err))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// removeParent deletes the instance's own cgroup, which has to be empty.
func (c cgroups) removeParent() error {
	var errs []error
	for _, hierarchy := range c.hierarchies {
		if err := unix.Rmdir(filepath.Join(hierarchy, c.parent)); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("removing cgroup %q: %w", c.parent, err))
		}
	}
	return errors.Join(errs...)
}
