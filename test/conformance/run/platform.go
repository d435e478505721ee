package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// objects are the configuration that the suites need beside upstream's own objects.
//
//go:embed objects.yaml
var objects string

// The Service in objects.yaml that tells the suites where the gateway is.
const (
	gatewayNamespace = "conformance"
	gatewayName      = "gateway"
)

type platformOptions struct{ name, address, podCIDR, serviceCIDR string }

// platform is a running `weft up`.
type platform struct {
	platformOptions
	bin, stateDir string
}

// startPlatform starts a new platform and returns when it is ready.
func startPlatform(ctx context.Context, bin string, o platformOptions) (*platform, error) {
	progress("starting weft")
	ports, err := freePorts(ctx, 2)
	if err != nil {
		return nil, err
	}
	stateDir, err := os.MkdirTemp("", "weft-conformance-")
	if err != nil {
		return nil, err
	}
	p := &platform{platformOptions: o, bin: bin, stateDir: stateDir}
	err = p.weft(ctx, "", "up", "--detach", "--name", o.name, "--proxy-address", o.address, "--http-port", "80",
		"--api-port", strconv.Itoa(ports[0]), "--metrics-port", strconv.Itoa(ports[1]), "--pod-cidr", o.podCIDR, "--service-cidr", o.serviceCIDR)
	if err != nil {
		return nil, errors.Join(err, p.destroy())
	}
	return p, nil
}

// freePorts asks the kernel for ports that nothing listens on.
func freePorts(ctx context.Context, n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// prepare makes the namespaces and the configuration that the suites expect.
func (p *platform) prepare(ctx context.Context, module string) error {
	progress("applying upstream's objects")
	config := filepath.Join(module, "test", "config")
	for _, files := range []string{"cluster-resources.yaml", "test-resources.yaml", "resource-quota"} {
		if err := p.weft(ctx, "", "kubectl", "apply", "-f", filepath.Join(config, files)); err != nil {
			return err
		}
	}
	if err := p.weft(ctx, objects, "kubectl", "apply", "-f", "-"); err != nil {
		return err
	}
	status := fmt.Sprintf(`{"status":{"loadBalancer":{"ingress":[{"ip":%q}]}}}`, p.address)
	return p.weft(ctx, "", "kubectl", "patch", "service", gatewayName, "-n", gatewayNamespace, "--subresource=status", "--type=merge", "-p", status)
}

// weft runs a command of weft on this platform.
func (p *platform) weft(ctx context.Context, stdin string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "weft"), args...)
	cmd.Env = append(os.Environ(), "WEFT_STATE_DIR="+p.stateDir)
	cmd.Stdin = strings.NewReader(stdin)
	// Ctrl-C is for the command that is interrupted, not for the one that cleans up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("weft %s: %w\n%s", strings.Join(args[:min(2, len(args))], " "), err, out)
	}
	return nil
}

// keepLogs copies the platform's logs to a directory, for the person who reads a failed run.
func (p *platform) keepLogs(dir string) {
	to := filepath.Join(dir, "logs")
	err := os.RemoveAll(to)
	if err == nil {
		err = os.CopyFS(to, os.DirFS(filepath.Join(p.stateDir, "logs")))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "keeping logs:", err)
		return
	}
	fmt.Fprintln(os.Stderr, "logs of the platform:", to)
}

// destroy stops the platform and removes all that it made, also after ctx has ended.
func (p *platform) destroy() error {
	progress("removing the platform")
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	err := p.weft(ctx, "", "down", "--purge")
	if err != nil {
		return err // the directory is needed to try again
	}
	return os.RemoveAll(p.stateDir)
}
