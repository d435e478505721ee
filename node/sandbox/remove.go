package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-dev/weft/internal/instance"
)

// RemoveAll removes what an instance has in the kernel: every sandbox with its interface, the bridge, and the nftables table. No
// Pool of the instance may be running. What is already gone is no error. IP forwarding stays on, because others may need it.
func RemoveAll(ctx context.Context, i instance.Instance) error {
	if err := i.Validate(); err != nil {
		return err
	}
	errs := []error{removeLinks(ctx, i), removeRules(i)}
	dir := directory(i)
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("reading the directory of namespaces: %w", err))
	}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if f.IsDir() {
			errs = append(errs, removeDirectory(filepath.Join(dir, f.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing the directory of namespaces: %w", err)
	}
	return nil
}

// removeLinks deletes the bridge after the interfaces on it.
func removeLinks(ctx context.Context, i instance.Instance) error {
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	defer links.Close()
	n := &network{links: links, port: portPrefix(i)}
	bridge, err := links.LinkByName(i.Bridge())
	if gone := new(netlink.LinkNotFoundError); errors.As(err, gone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding bridge %q: %w", i.Bridge(), err)
	}
	if bridge.Type() != "bridge" {
		return fmt.Errorf("interface %q is a %s and not a bridge", i.Bridge(), bridge.Type())
	}
	n.bridge = bridge.(*netlink.Bridge)
	ports, err := n.ports()
	if err != nil {
		return err
	}
	for _, name := range append(ports, i.Bridge()) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := n.deleteLink(name); err != nil {
			return err
		}
	}
	return nil
}
