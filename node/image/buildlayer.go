package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// layerContent is what goes into the layer of a build.
type layerContent struct {
	// binary and data are paths of this machine; data may be missing.
	binary, data string
	// name of the binary in the image.
	name string
	// bare adds what a base image has: users, certificates, /tmp.
	bare bool
}

// writeLayer writes the archive and returns the hex digest and size of it.
func writeLayer(path string, c layerContent) (string, int64, error) {
	f, err := os.Create(path)
	if err != nil {
		return "", 0, fmt.Errorf("writing layer: %w", err)
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	w := layerWriter{tar.NewWriter(io.MultiWriter(f, sum))}
	if c.bare {
		err = w.system()
	}
	if err == nil {
		err = w.dir(appDir, 0o755, 0)
	}
	if err == nil {
		err = w.copyFile(appDir+"/"+c.name, c.binary, 0o755)
	}
	if err == nil {
		err = w.data(c.data)
	}
	if err == nil {
		err = w.tw.Close()
	}
	if err != nil {
		return "", 0, fmt.Errorf("writing layer: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		return "", 0, fmt.Errorf("writing layer: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), fi.Size(), nil
}

// layerWriter writes entries whose time and owner do not depend on this machine.
type layerWriter struct{ tw *tar.Writer }

func (w layerWriter) dir(name string, mode int64, uid int) error {
	return w.tw.WriteHeader(&tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: mode, Uid: uid, Gid: uid, ModTime: epoch(), Format: tar.FormatPAX})
}

func (w layerWriter) file(name, body string) error {
	h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body)), ModTime: epoch(), Format: tar.FormatPAX}
	if err := w.tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.WriteString(w.tw, body)
	return err
}

func (w layerWriter) copyFile(name, from string, mode int64) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: fi.Size(), ModTime: epoch(), Format: tar.FormatPAX}
	if err := w.tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w.tw, f)
	return err
}

// system writes what a static program expects around it.
func (w layerWriter) system() error {
	steps := []func() error{
		func() error { return w.dir("etc", 0o755, 0) },
		func() error {
			return w.file("etc/passwd", "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n"+
				"nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")
		},
		func() error { return w.file("etc/group", "root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n") },
		// Without it some resolvers ask DNS before /etc/hosts.
		func() error { return w.file("etc/nsswitch.conf", "hosts: files dns\n") },
		func() error { return w.dir("etc/ssl", 0o755, 0) },
		func() error { return w.dir("etc/ssl/certs", 0o755, 0) },
		w.certificates,
		func() error { return w.dir("home", 0o755, 0) },
		func() error { return w.dir("home/nonroot", 0o700, nonroot) },
		func() error { return w.dir("root", 0o700, 0) },
		func() error { return w.dir("tmp", 0o1777, 0) },
		func() error { return w.dir("var", 0o755, 0) },
		func() error { return w.dir("var/run", 0o755, 0) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// certificates copies the host's certificate authorities. A host without any makes an image without any.
func (w layerWriter) certificates() error {
	for _, p := range hostCAFiles() {
		if _, err := os.Stat(p); err == nil {
			return w.copyFile(caFile, p, 0o644)
		}
	}
	return nil
}

// data copies the directory of static files. Links are followed, as ko does, because a target outside would be missing in the image.
func (w layerWriter) data(from string) error {
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return w.dataDir(from, dataDir)
}

func (w layerWriter) dataDir(from, to string) error {
	if err := w.dir(to, 0o755, 0); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		src, dst := filepath.Join(from, e.Name()), to+"/"+e.Name()
		fi, err := os.Stat(src)
		if err != nil {
			return err
		}
		switch {
		case fi.IsDir():
			err = w.dataDir(src, dst)
		case fi.Mode().IsRegular():
			err = w.copyFile(dst, src, 0o644|int64(fi.Mode().Perm()&0o111))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
