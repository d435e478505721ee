package image

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// view is a stack of unpacked layers, base first, read as overlayfs shows it. Nothing is mounted: reading a few directories is faster,
// and works while the layer on top is still being made.
type view []string

// node is what a view has at a path.
type node struct {
	// host is the file's path on this machine. Its directories are no links.
	host string
	stat unix.Stat_t
}

func (n *node) is(kind uint32) bool { return n.stat.Mode&unix.S_IFMT == kind }

// lstat returns what the view shows at a path, nil when nothing.
func (v view) lstat(p string) (*node, error) {
	for _, layer := range slices.Backward(v) {
		n, hidden, err := look(layer, p)
		if err != nil || n != nil || hidden {
			return n, err
		}
	}
	return nil, nil //nolint:nilnil // absence is an ordinary answer
}

// look returns what one layer has at a path, or whether it hides what the layers below have.
func look(layer, p string) (n *node, hidden bool, err error) {
	cur := layer
	opaque := false
	parts := strings.Split(p, "/")
	for i, part := range parts {
		cur = filepath.Join(cur, part)
		n := &node{host: cur}
		err := unix.Lstat(cur, &n.stat)
		if errors.Is(err, unix.ENOENT) {
			return nil, opaque, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("reading layer: %w", err)
		}
		if isWhiteout(&n.stat) {
			return nil, true, nil
		}
		if i == len(parts)-1 {
			return n, false, nil
		}
		if !n.is(unix.S_IFDIR) {
			return nil, true, nil
		}
		opaque = opaque || isOpaque(cur)
	}
	return nil, false, nil
}

// resolve follows the symbolic links of a path with the view as root. What does not exist stays as it is.
func (v view) resolve(p string) (string, error) {
	cur, rest := "", strings.Split(p, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			cur = strings.Trim(path.Dir("/"+cur), "/")
			continue
		}
		next := path.Join(cur, part)
		n, err := v.lstat(next)
		if err != nil {
			return "", err
		}
		if n == nil || !n.is(unix.S_IFLNK) {
			cur = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("resolving %q: %w", p, unix.ELOOP)
		}
		to, err := os.Readlink(n.host)
		if err != nil {
			return "", fmt.Errorf("reading layer: %w", err)
		}
		if path.IsAbs(to) {
			cur = ""
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return cur, nil
}

// isOpaque reports whether a directory of a layer hides what is in it below.
func isOpaque(host string) bool {
	var b [1]byte
	n, err := unix.Lgetxattr(host, overlayOpaque, b[:])
	return err == nil && n == 1 && b[0] == 'y'
}
