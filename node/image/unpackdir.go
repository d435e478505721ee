package image

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// open returns a descriptor of a directory of the layer, which it makes when no entry did. The unpacker closes it.
func (u *unpacker) open(dir string) (int, error) {
	if dir == "" {
		return u.root, nil
	}
	if u.parent >= 0 && u.parentName == dir {
		return u.parent, nil
	}
	fd, err := u.openMaking(dir, 0)
	if err != nil {
		return -1, err
	}
	u.forgetParent()
	u.parent, u.parentName = fd, dir
	return fd, nil
}

// openExisting opens a directory with the layer as root: links in the path, also absolute ones and "..", end inside the layer.
func (u *unpacker) openExisting(dir string) (int, error) {
	if dir == "" {
		dir = "."
	}
	for {
		fd, err := unix.Openat2(u.root, dir, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		// The kernel asks to try again when something was renamed meanwhile.
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// openMaking is openExisting that makes what is missing.
func (u *unpacker) openMaking(dir string, links int) (int, error) {
	fd, err := u.openExisting(dir)
	if err == nil || links > maxLinks || (!errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR)) {
		return fd, err
	}
	parent, base := u.root, dir
	if i := strings.LastIndexByte(dir, '/'); i >= 0 {
		base = dir[i+1:]
		if parent, err = u.openMaking(dir[:i], links+1); err != nil {
			return -1, err
		}
		defer func() { _ = unix.Close(parent) }()
	}
	made, implied, err := u.makeDir(parent, base)
	if err != nil {
		return -1, err
	}
	if made {
		if implied {
			u.implied[dir] = true
		}
		return u.openExisting(dir)
	}
	// A link to a directory that no entry made yet.
	to, err := readLinkAt(parent, base)
	if err != nil {
		return -1, err
	}
	if !path.IsAbs(to) {
		to = path.Join("/", path.Dir(dir), to)
	}
	return u.openMaking(path.Clean(to)[1:], links+1)
}

// makeDir makes a directory that no entry describes. It makes nothing when a symbolic link has the name. The directory is implied
// unless it replaces a whiteout: then it is a new one, whatever is below.
func (u *unpacker) makeDir(parent int, base string) (made, implied bool, err error) {
	implied = true
	err = unix.Mkdirat(parent, base, 0o755)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return false, false, err
		}
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFLNK:
			return false, false, nil
		case !isWhiteout(&st):
			return false, false, fmt.Errorf("%q is not a directory: %w", base, unix.ENOTDIR)
		}
		if err := removeAt(parent, base); err != nil {
			return false, false, err
		}
		err = unix.Mkdirat(parent, base, 0o755)
		implied = false
	}
	if err != nil {
		return false, false, err
	}
	u.files++
	if err := unix.Fchmodat(parent, base, 0o755, 0); err != nil { // whatever the umask
		return false, false, err
	}
	if !implied {
		err = setOpaque(parent, base)
	}
	return true, implied, err
}

// readLinkAt returns where a symbolic link leads.
func readLinkAt(parent int, base string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(parent, base, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// forgetParent closes the remembered directory.
func (u *unpacker) forgetParent() {
	if u.parent >= 0 {
		_ = unix.Close(u.parent)
	}
	u.parent, u.parentName = -1, ""
}
