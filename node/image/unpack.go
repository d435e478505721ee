package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnsafe is a layer that tries to write outside its own directory or to forge overlayfs's bookkeeping.
var ErrUnsafe = errors.New("unsafe layer")

// The names by which an OCI layer marks what it removes from the layers below.
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh."
)

// The extended attributes that overlayfs understands, and how tar carries extended attributes.
const (
	overlayOpaque  = "trusted.overlay.opaque"
	paxXattrPrefix = "SCHILY.xattr."
)

// maxLinks bounds how many symbolic links of the layer a directory may lead through, as the kernel does.
const maxLinks = 40

// copyBuffers hold the blocks in which file contents are copied.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// unpacker writes a tar archive below a directory, with whiteouts in the form that overlayfs takes. Every path is opened by the
// kernel with the directory as its root, so that no entry leaves it whatever links the archive made before.
type unpacker struct {
	root int
	// parent is an open descriptor of the directory parentName, because consecutive entries mostly share it; -1 when none.
	parent     int
	parentName string
	// times of directories are applied last, as writing into a directory changes them.
	times []dirTime
	// implied are directories that the archive uses without an entry for them.
	implied map[string]bool
	// files counts what needs a flush.
	files int
}

type dirTime struct {
	name string
	time time.Time
}

// unpack writes the archive into dir, which must exist and be empty. It stops at the end of the archive and leaves the rest of r.
func unpack(dir string, r io.Reader) (*unpacker, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %q: %w", dir, err)
	}
	u := &unpacker{root: root, parent: -1, implied: map[string]bool{}}
	defer u.close()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading archive: %w", err)
		}
		if err := u.entry(h, tr); err != nil {
			return nil, fmt.Errorf("unpacking %q: %w", h.Name, err)
		}
	}
	return u, u.setTimes()
}

// setTimes applies the times of directories. Nothing is written after it.
func (u *unpacker) setTimes() error {
	for _, d := range slices.Backward(u.times) {
		if err := u.setDirTime(d); err != nil {
			return fmt.Errorf("setting time of %q: %w", d.name, err)
		}
	}
	return nil
}

// close gives the descriptors back.
func (u *unpacker) close() {
	u.forgetParent()
	_ = unix.Close(u.root)
}

// cleanName returns the path of an entry relative to the layer, "." for the layer itself.
func cleanName(s string) (string, error) {
	s = path.Clean(strings.TrimLeft(s, "/"))
	if s == ".." || strings.HasPrefix(s, "../") || strings.ContainsRune(s, 0) {
		return "", fmt.Errorf("%w: path %q leaves the layer", ErrUnsafe, s)
	}
	return s, nil
}

// entry writes one entry of the archive.
func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	n, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if n == "." {
		u.times = append(u.times, dirTime{n, h.ModTime})
		return u.attributes(u.root, ".", h)
	}
	dir, base := path.Split(n)
	parent, err := u.open(path.Clean("/" + dir)[1:])
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return u.whiteout(parent, base)
	}
	if err := u.create(parent, base, h, r); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeLink:
		return nil // the inode has its attributes already
	case tar.TypeDir:
		u.times = append(u.times, dirTime{n, h.ModTime})
		delete(u.implied, n)
		return u.attributes(parent, base, h)
	default:
		if err := u.attributes(parent, base, h); err != nil {
			return err
		}
		return setTime(parent, base, h.ModTime)
	}
}

// create makes the file, directory, link or node. A later entry replaces an earlier one, except that directories merge.
func (u *unpacker) create(parent int, base string, h *tar.Header, r io.Reader) error {
	err := u.createNew(parent, base, h, r)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir && h.Typeflag == tar.TypeDir {
		return nil
	}
	if parent != u.parent {
		u.forgetParent() // it may lie below what goes
	}
	if err := removeAt(parent, base); err != nil {
		return err
	}
	if err := u.createNew(parent, base, h, r); err != nil {
		return err
	}
	if isWhiteout(&st) && h.Typeflag == tar.TypeDir {
		return setOpaque(parent, base)
	}
	return nil
}

func (u *unpacker) createNew(parent int, base string, h *tar.Header, r io.Reader) error {
	mode := uint32(h.Mode) & 0o7777
	switch h.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse:
		u.files++
		return writeFile(parent, base, h.Size, r)
	case tar.TypeDir:
		u.files++
		return unix.Mkdirat(parent, base, 0o755)
	case tar.TypeSymlink:
		return unix.Symlinkat(h.Linkname, parent, base)
	case tar.TypeLink:
		return u.hardLink(parent, base, h.Linkname)
	case tar.TypeFifo:
		return unix.Mknodat(parent, base, unix.S_IFIFO|mode, 0)
	case tar.TypeChar, tar.TypeBlock:
		kind := uint32(unix.S_IFCHR)
		if h.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		if h.Devmajor == 0 && h.Devminor == 0 {
			return fmt.Errorf("%w: device 0:0 is overlayfs's whiteout", ErrUnsafe)
		}
		dev := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		return unix.Mknodat(parent, base, kind|mode, int(dev))
	default:
		return fmt.Errorf("unknown type %q of entry", h.Typeflag)
	}
}

// writeFile creates a file with the next size bytes of r.
func writeFile(parent int, base string, size int64, r io.Reader) error {
	fd, err := unix.Openat(parent, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	// The wrapper hides ReadFrom, which would allocate a buffer for each file.
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, io.LimitReader(r, size), *buf)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// hardLink links to a file of the same layer.
func (u *unpacker) hardLink(parent int, base, to string) error {
	to, err := cleanName(to)
	if err != nil {
		return err
	}
	dir, toBase := path.Split(to)
	toParent, err := u.openExisting(path.Clean("/" + dir)[1:])
	if err != nil {
		return fmt.Errorf("hard link to %q, which is not in this layer: %w", to, err)
	}
	defer func() { _ = unix.Close(toParent) }()
	err = unix.Linkat(toParent, toBase, parent, base, 0)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("hard link to %q, which is not in this layer: %w", to, err)
	}
	return err
}

// whiteout translates OCI's mark for a removed file or an opaque directory.
func (u *unpacker) whiteout(parent int, base string) error {
	if base == whiteoutOpaque {
		return setOpaque(parent, "")
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return nil // bookkeeping of aufs
	}
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return fmt.Errorf("%w: whiteout %q", ErrUnsafe, base)
	}
	err := unix.Mknodat(parent, hidden, unix.S_IFCHR, 0)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// A whiteout hides the layers below, never its own: what this layer has there stays, and a directory shows nothing from below.
	var st unix.Stat_t
	if err := unix.Fstatat(parent, hidden, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return setOpaque(parent, hidden)
	}
	return nil
}

func isWhiteout(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

// setOpaque marks a directory as hiding what the layers below have in it.
func setOpaque(parent int, base string) error {
	return unix.Lsetxattr(fdPath(parent, base), overlayOpaque, []byte("y"), 0)
}

// attributes applies owner, mode and extended attributes, in the order in which none undoes another: chown clears set-user-id and
// capabilities.
func (u *unpacker) attributes(parent int, base string, h *tar.Header) error {
	if err := unix.Fchownat(parent, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("setting owner %d:%d: %w", h.Uid, h.Gid, err)
	}
	if h.Typeflag != tar.TypeSymlink {
		mode := uint32(h.Mode) & 0o7777
		if err := unix.Fchmodat(parent, base, mode, 0); err != nil {
			return fmt.Errorf("setting mode %o: %w", mode, err)
		}
	}
	for key, value := range h.PAXRecords {
		key, ok := strings.CutPrefix(key, paxXattrPrefix)
		if !ok || !xattrAllowed(key) {
			continue
		}
		err := unix.Lsetxattr(fdPath(parent, base), key, []byte(value), 0)
		if errors.Is(err, unix.ENOTSUP) || (errors.Is(err, unix.EPERM) && key != "security.capability") {
			continue // the file system or the type of file cannot have it
		}
		if err != nil {
			return fmt.Errorf("setting attribute %q: %w", key, err)
		}
	}
	return nil
}

// xattrAllowed keeps what programs in the container read. The trusted namespace is overlayfs's own: an archive that could set a
// redirect there would show files of the host. Labels of security modules belong to the host.
func xattrAllowed(key string) bool {
	switch {
	case key == "security.capability", key == "system.posix_acl_access", key == "system.posix_acl_default":
		return true
	case strings.HasPrefix(key, "user.overlay."):
		return false
	}
	return strings.HasPrefix(key, "user.")
}

// fdPath names a file relative to an open directory, for system calls that have no variant with a descriptor.
func fdPath(parent int, base string) string {
	p := "/proc/self/fd/" + strconv.Itoa(parent)
	if base == "" || base == "." {
		return p + "/."
	}
	return p + "/" + base
}

// removeAt removes a file or a tree. It follows no link.
func removeAt(parent int, base string) error { return os.RemoveAll(fdPath(parent, base)) }

// setTime sets access and modification time of a file, not of what a link leads to.
func setTime(parent int, base string, t time.Time) error {
	if t.Before(time.Unix(0, 0)) {
		t = time.Unix(0, 0)
	}
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return fmt.Errorf("setting time: %w", err)
	}
	return unix.UtimesNanoAt(parent, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func (u *unpacker) setDirTime(d dirTime) error {
	fd, err := u.openExisting(d.name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil // a later entry replaced it
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return setTime(fd, ".", d.time)
}
