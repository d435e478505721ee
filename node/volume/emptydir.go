package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
)

// memoryDir, below the directory of volumes, is one tmpfs for all secret content of a pod: one mount per pod instead of one per
// volume keeps starts fast. A volume cannot have this name.
const memoryDir = "..memory"

// mountMemory mounts the tmpfs for secret content when the pod has some.
func (s *Set) mountMemory(pod *v1.Pod) error {
	for i := range pod.Spec.Volumes {
		if isSecret(&pod.Spec.Volumes[i]) {
			return mountTmpfs(filepath.Join(s.options.Dir, memoryDir), 0o755, 0)
		}
	}
	return nil
}

func mountTmpfs(dir string, mode uint32, size int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making a directory for memory: %w", err)
	}
	if mounted, err := isMountPoint(dir); err != nil || mounted {
		return err
	}
	data := "mode=" + strconv.FormatUint(uint64(mode), 8)
	if size > 0 {
		data += ",size=" + strconv.FormatInt(size, 10)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		return fmt.Errorf("mounting memory: %w", err)
	}
	return nil
}

// isMountPoint compares the devices of a directory and its parent, which tells a tmpfs but not a bind mount of the same device.
func isMountPoint(dir string) (bool, error) {
	var here, above unix.Stat_t
	if err := unix.Lstat(dir, &here); err != nil {
		return false, fmt.Errorf("reading %q: %w", dir, err)
	}
	if err := unix.Lstat(filepath.Dir(dir), &above); err != nil {
		return false, fmt.Errorf("reading %q: %w", filepath.Dir(dir), err)
	}
	return here.Dev != above.Dev, nil
}

func makeEmptyDir(dir string, source *v1.EmptyDirVolumeSource, group *int64) error {
	switch source.Medium {
	case v1.StorageMediumDefault:
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return fmt.Errorf("making an empty directory: %w", err)
		}
	case v1.StorageMediumMemory:
		var size int64
		if source.SizeLimit != nil {
			size = source.SizeLimit.Value()
		}
		if err := mountTmpfs(dir, 0o777, size); err != nil {
			return err
		}
	default:
		return fmt.Errorf("unknown storage medium %q", source.Medium)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		return fmt.Errorf("setting the mode of an empty directory: %w", err)
	}
	if group == nil {
		return nil
	}
	return ownOne(dir, *group, false)
}

// Remove unmounts and deletes the directory of a pod's volumes. It is no error that the directory does not exist.
func Remove(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmounting %q: %w", m, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing volumes: %w", err)
	}
	return nil
}
