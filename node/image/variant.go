package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An archive may use a directory without an entry for it: "opt/app" alone, as tools that append one file to a base image write. Such
// a directory has no attributes of its own, and may be a symbolic link in the layers below (/lib in most distributions). Unpacked by
// itself, the layer would hide the link, or change the owner and mode of the directory below. When that would happen, the layer is
// used in a variant made for the layers that are below it: the same files, by hard links, with the directories put right.

// plainDir is what unpack gives to an implied directory.
const plainDir = unix.S_IFDIR | 0o755

// variantKey is everything that determines a variant.
type variantKey struct {
	Layer string
	// Moves are implied directories that lead elsewhere below.
	Moves map[string]string
	// Dirs are the attributes that implied directories have below.
	Dirs map[string]dirKey
}

// dirKey is the attributes of a directory that differ from plainDir's.
type dirKey struct {
	Mode     uint32
	UID, GID uint32
}

// arrange returns the directories that make up an image, base first: for each layer itself or a variant of it. All layers are present.
func (s *Store) arrange(layers []string) ([]string, error) {
	layers = stack(layers)
	var below view
	out := make([]string, 0, len(layers))
	for _, l := range layers {
		use, err := s.fit(l, below)
		if err != nil {
			return nil, fmt.Errorf("arranging layer sha256:%s: %w", l, err)
		}
		out = append(out, use)
		below = append(below, s.layerPath(use))
	}
	return out, nil
}

// fit returns the layer, or the variant of it that fits on the layers below.
func (s *Store) fit(layer string, below view) (string, error) {
	implied, err := s.impliedDirs(layer)
	if err != nil || len(implied) == 0 {
		return layer, err
	}
	key, err := newVariantKey(layer, implied, below)
	if err != nil || (len(key.Moves) == 0 && len(key.Dirs) == 0) {
		return layer, err
	}
	data, err := json.Marshal(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(append([]byte("variant of a layer\n"), data...))
	name := hex.EncodeToString(sum[:])
	if _, err := os.Lstat(s.layerPath(name)); !errors.Is(err, fs.ErrNotExist) {
		return name, err
	}
	return name, s.makeVariant(name, key, implied, below)
}

// impliedDirs returns the directories that unpackLayer noted, parents first.
func (s *Store) impliedDirs(layer string) ([]string, error) {
	data, err := os.ReadFile(s.path(impliedDir, layer))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var dirs []string
	if err := json.Unmarshal(data, &dirs); err != nil {
		return nil, fmt.Errorf("reading implied directories: %w", err)
	}
	return dirs, nil
}

// noteImplied writes what impliedDirs reads. It comes before the layer is in place.
func (s *Store) noteImplied(layer string, implied map[string]bool) error {
	if len(implied) == 0 {
		return nil
	}
	data, err := json.Marshal(slices.Sorted(maps.Keys(implied)))
	if err != nil {
		return err
	}
	return s.writeDurable(s.path(impliedDir, layer), data)
}

// newVariantKey compares the implied directories with what is below.
func newVariantKey(layer string, implied []string, below view) (variantKey, error) {
	key := variantKey{Layer: layer, Moves: map[string]string{}, Dirs: map[string]dirKey{}}
	for _, d := range implied {
		at := key.move(d)
		n, err := below.lstat(at)
		if err != nil {
			return key, err
		}
		if n != nil && n.is(unix.S_IFLNK) {
			if at, err = below.resolve(at); err != nil {
				return key, err
			}
			key.Moves[d] = at
			continue // its attributes are those of the directory that it leads to, taken when the variant is made
		}
		if n == nil || !n.is(unix.S_IFDIR) {
			continue
		}
		if n.stat.Mode != plainDir || n.stat.Uid != 0 || n.stat.Gid != 0 {
			key.Dirs[at] = dirKey{Mode: n.stat.Mode, UID: n.stat.Uid, GID: n.stat.Gid}
		}
	}
	return key, nil
}

// move returns where a path of the layer goes in the variant.
func (k *variantKey) move(p string) string {
	for prefix := p; prefix != "."; prefix = path.Dir(prefix) {
		if to, ok := k.Moves[prefix]; ok {
			return path.Join(to, strings.TrimPrefix(p, prefix))
		}
	}
	return p
}

// makeVariant builds the variant below tmp and renames it into place.
func (s *Store) makeVariant(name string, key variantKey, implied []string, below view) error {
	tmp, err := os.MkdirTemp(s.path(tempDir), "variant-*")
	if err != nil {
		return err
	}
	defer func() {
		if err := os.RemoveAll(tmp); err != nil {
			s.log.Error("removing temporary layer", "path", tmp, "err", err)
		}
	}()
	dir := filepath.Join(tmp, "fs")
	if err := os.Mkdir(dir, dirMode); err != nil {
		return err
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	u := &unpacker{root: root, parent: -1, implied: map[string]bool{}}
	defer u.close()
	plain := map[string]bool{}
	for _, d := range implied {
		plain[d] = true
	}
	src := s.layerPath(key.Layer)
	err = filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, p)
		if err != nil {
			return err
		}
		return u.adopt(p, key.move(rel), d.IsDir(), plain[rel])
	})
	if err != nil {
		return err
	}
	if err := u.inherit(below); err != nil {
		return err
	}
	if err := u.setTimes(); err != nil {
		return err
	}
	return s.place(dir, name, u.files)
}

// adopt puts a file or directory of a layer at rel, sharing the file.
func (u *unpacker) adopt(from, rel string, isDir, implied bool) error {
	if isDir {
		if rel == "." {
			rel = ""
		}
		fd, err := u.open(rel)
		if err != nil {
			return err
		}
		if implied {
			if isOpaque(from) {
				return setOpaque(fd, "")
			}
			return nil
		}
		delete(u.implied, rel)
		var st unix.Stat_t
		if err := unix.Lstat(from, &st); err != nil {
			return err
		}
		u.times = append(u.times, dirTime{rel, time.Unix(st.Mtim.Unix())})
		return copyAttributes(from, fd, true)
	}
	dir, base := path.Split(rel)
	parent, err := u.open(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return err
	}
	err = unix.Linkat(unix.AT_FDCWD, from, parent, base, 0)
	if errors.Is(err, unix.EEXIST) { // what came through a link meets what was there by its real name
		if err := removeAt(parent, base); err != nil {
			return err
		}
		err = unix.Linkat(unix.AT_FDCWD, from, parent, base, 0)
	}
	return err
}

// inherit gives the directories that are still implied the attributes of those below.
func (u *unpacker) inherit(below view) error {
	for d := range u.implied {
		n, err := below.lstat(d)
		if err != nil {
			return err
		}
		if n == nil || !n.is(unix.S_IFDIR) {
			continue
		}
		fd, err := u.openExisting(d)
		if err != nil {
			return err
		}
		err = copyAttributes(n.host, fd, false)
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
		u.times = append(u.times, dirTime{d, time.Unix(n.stat.Mtim.Unix())})
	}
	return nil
}

// copyAttributes copies owner, mode and extended attributes of a directory, and whether it is opaque only when asked: that is a
// property of one layer.
func copyAttributes(from string, fd int, opaque bool) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	if err := unix.Fchownat(fd, ".", int(st.Uid), int(st.Gid), 0); err != nil {
		return err
	}
	if err := unix.Fchmodat(fd, ".", st.Mode&0o7777, 0); err != nil {
		return err
	}
	if opaque && isOpaque(from) {
		if err := setOpaque(fd, ""); err != nil {
			return err
		}
	}
	names := make([]byte, 64<<10) // the kernel's own limit of a list
	n, err := unix.Llistxattr(from, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	for key := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if !xattrAllowed(key) {
			continue
		}
		value := make([]byte, 64<<10)
		size, err := unix.Lgetxattr(from, key, value)
		if err != nil {
			return err
		}
		if err := unix.Lsetxattr(fdPath(fd, ""), key, value[:size], 0); err != nil {
			return err
		}
	}
	return nil
}
