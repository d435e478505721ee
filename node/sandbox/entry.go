package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/internal/instance"
)

// The files of a sandbox's directory. Its name is the id, or warmPrefix and the address before it has one.
const (
	netFile    = "net"
	ipcFile    = "ipc"
	utsFile    = "uts"
	recordFile = "sandbox.json"
	warmPrefix = ".warm-"
	// cursorFile holds the address given out last, beside the directories.
	cursorFile = ".cursor"
)

// entry is a sandbox as the pool keeps it.
type entry struct {
	dir     string
	address netip.Addr
	// claimed says that this process handed the sandbox out or was told to keep it.
	claimed bool
}

// record is what stays on disk of an entry. It is written last, so that a directory with a record is complete.
type record struct {
	Address netip.Addr `json:"address"`
}

func directory(i instance.Instance) string { return i.Path("run", "ns") }

func (e *entry) sandbox() *Sandbox {
	return &Sandbox{
		ID: filepath.Base(e.dir), Address: e.address,
		NetNS: filepath.Join(e.dir, netFile), IPCNS: filepath.Join(e.dir, ipcFile), UTSNS: filepath.Join(e.dir, utsFile),
	}
}

// rename moves the directory with the mounts in it, which the kernel allows because no mount is the directory itself.
func (e *entry) rename(dir string) error {
	if err := os.Rename(e.dir, dir); err != nil {
		return err
	}
	e.dir = dir
	return nil
}

func (e *entry) write() error {
	data, err := json.Marshal(record{Address: e.address})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(e.dir, recordFile), data, 0o600)
}

// readEntry returns the entry of a directory if it is complete: it has a record and its namespaces are still bound, which they
// are not after a reboot.
func readEntry(dir string) (*entry, bool) {
	data, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return nil, false
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil || !r.Address.IsValid() {
		return nil, false
	}
	for _, name := range []string{netFile, ipcFile, utsFile} {
		var st unix.Statfs_t
		if err := unix.Statfs(filepath.Join(dir, name), &st); err != nil || st.Type != unix.NSFS_MAGIC {
			return nil, false
		}
	}
	return &entry{dir: dir, address: r.Address}, true
}

// removeDirectory unbinds the namespaces of a sandbox's directory and removes it. It works on half-made ones too.
func removeDirectory(dir string) error {
	for _, name := range []string{netFile, ipcFile, utsFile} {
		// More than one mount may lie on a file when a process died in the middle; EINVAL says that none is left.
		for {
			err := unix.Unmount(filepath.Join(dir, name), unix.MNT_DETACH)
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
				break
			}
			if err != nil {
				return fmt.Errorf("unbinding namespace %q: %w", filepath.Join(dir, name), err)
			}
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing sandbox directory: %w", err)
	}
	return nil
}

// load reads what an earlier process left: warm sandboxes go back to the pool, bound ones wait for Adopt, remains are removed.
func (p *Pool) load() error {
	if data, err := os.ReadFile(filepath.Join(p.dir, cursorFile)); err == nil {
		if last, err := netip.ParseAddr(strings.TrimSpace(string(data))); err == nil {
			p.addresses.last = last
		}
	}
	files, err := os.ReadDir(p.dir)
	if err != nil {
		return fmt.Errorf("reading the directory of namespaces: %w", err)
	}
	for _, f := range files {
		if !f.IsDir() {
			continue
		}
		dir := filepath.Join(p.dir, f.Name())
		warm := strings.HasPrefix(f.Name(), ".")
		e, ok := readEntry(dir)
		if ok && warm {
			ok = p.addresses.contains(e.address) && p.network.hasPort(e.address)
		}
		switch {
		case !ok:
			if err := removeDirectory(dir); err != nil {
				return err
			}
		case warm:
			p.addresses.reserve(e.address)
			p.warm = append(p.warm, e)
		default:
			p.addresses.reserve(e.address)
			p.bound[f.Name()] = e
		}
	}
	return nil
}

// make builds a warm sandbox. Nothing of it is left after an error.
func (p *Pool) make() (_ *entry, err error) {
	addr, err := p.allocate()
	if err != nil {
		return nil, err
	}
	e := &entry{dir: filepath.Join(p.dir, warmPrefix+addr.String()), address: addr}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.destroy(e))
		}
	}()
	if err := os.Mkdir(e.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making sandbox directory: %w", err)
	}
	if err := p.network.connect(e); err != nil {
		return nil, fmt.Errorf("making a sandbox with address %s: %w", addr, err)
	}
	if err := e.write(); err != nil {
		return nil, fmt.Errorf("writing sandbox record: %w", err)
	}
	return e, nil
}

// destroy removes the interface first: it is what makes the address usable, and it would otherwise live until the last process
// of the namespace is gone.
func (p *Pool) destroy(e *entry) error {
	if err := p.network.deletePort(e.address); err != nil {
		return err
	}
	if err := removeDirectory(e.dir); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addresses.release(e.address)
	return nil
}

// allocate reserves an address. The place in the order is written down, because a restart must not hand out again an address
// that a client may still be talking to.
func (p *Pool) allocate() (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	addr, err := p.addresses.allocate()
	if err != nil {
		return netip.Addr{}, err
	}
	if err := os.WriteFile(filepath.Join(p.dir, cursorFile), []byte(addr.String()+"\n"), 0o600); err != nil {
		p.addresses.release(addr)
		return netip.Addr{}, fmt.Errorf("writing the last address: %w", err)
	}
	return addr, nil
}

func (p *Pool) reserved(addr netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addresses.reserved(addr)
}
