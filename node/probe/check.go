package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Outcome of one check.
type Outcome string

// The outcomes. A Warning counts as success.
const (
	Success Outcome = "success"
	Warning Outcome = "warning"
	Failure Outcome = "failure"
)

// Result is one answer of a container, with the words that users see in events.
type Result struct {
	Outcome Outcome
	Message string
}

// OK reports whether the check passed.
func (r Result) OK() bool { return r.Outcome != Failure }

// Exec runs a command in the container and returns its exit code and combined output. It ends the command when ctx ends.
type Exec func(ctx context.Context, command []string) (exitCode int, output string, err error)

// Target is the container that is asked.
type Target struct {
	Container *v1.Container
	// Host is the pod's address.
	Host string
	Exec Exec
}

// Check asks once. The error is a check that could not be carried out, which says nothing about the container.
func Check(ctx context.Context, p *v1.Probe, t Target) (Result, error) {
	timeout := time.Duration(max(p.TimeoutSeconds, 1)) * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case p.HTTPGet != nil:
		return checkHTTP(ctx, p.HTTPGet, t)
	case p.TCPSocket != nil:
		return checkTCP(ctx, p.TCPSocket, t)
	case p.GRPC != nil:
		return checkGRPC(ctx, p.GRPC, t, timeout)
	case p.Exec != nil:
		return checkExec(ctx, p.Exec, t, timeout)
	default:
		return Result{}, fmt.Errorf("missing probe handler for %s", t.Container.Name)
	}
}

func checkTCP(ctx context.Context, a *v1.TCPSocketAction, t Target) (Result, error) {
	port, err := Port(a.Port, t.Container)
	if err != nil {
		return Result{}, err
	}
	host := a.Host
	if host == "" {
		host = t.Host
	}
	conn, err := dialer().DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return Result{Outcome: Failure, Message: err.Error()}, nil //nolint:nilerr // the container's answer
	}
	_ = conn.Close()
	return Result{Outcome: Success}, nil
}

func checkExec(ctx context.Context, a *v1.ExecAction, t Target, timeout time.Duration) (Result, error) {
	code, output, err := t.Exec(ctx, a.Command)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return Result{Outcome: Failure, Message: fmt.Sprintf("command timed out: %q timed out after %v", a.Command, timeout)}, nil
	case err != nil:
		return Result{}, err
	case code != 0:
		return Result{Outcome: Failure, Message: output}, nil
	default:
		return Result{Outcome: Success, Message: output}, nil
	}
}

// Port resolves a port that may be the name of one of the container's.
func Port(p intstr.IntOrString, c *v1.Container) (int, error) {
	port := p.IntValue()
	if p.Type == intstr.String {
		for _, cp := range c.Ports {
			if cp.Name == p.StrVal {
				port = int(cp.ContainerPort)
			}
		}
	}
	if port < 1 || port > 65535 {
		if p.Type == intstr.String {
			return 0, fmt.Errorf("port %s not found", p.StrVal)
		}
		return 0, fmt.Errorf("invalid port number: %v", port)
	}
	return port, nil
}
