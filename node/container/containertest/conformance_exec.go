package containertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/weft-dev/weft/node/container"
)

func (h Harness) execs(t *testing.T) {
	t.Helper()
	r := h.New(t)
	spec := h.spec(t, "wait", "0")
	spec.Process.Env, spec.Process.User = []string{"A=1"}, "12:34"
	if _, err := r.Start(ctx(t), spec); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name             string
		args             []string
		tty              bool
		stdin            io.Reader
		wantOut, wantErr string
		wantCode         int
	}{
		{name: "output", args: []string{"echo", "hi"}, wantOut: "hi\n"},
		{name: "error output", args: []string{"complain", "oh"}, wantErr: "oh\n"},
		{name: "exit code", args: []string{"exit", "7"}, wantCode: 7},
		{name: "user of the container", args: []string{"id"}, wantOut: "uid=12 gid=34 groups=[34]\n"},
		{name: "environment of the container", args: []string{"env"}, wantOut: "A=1\n"},
		{name: "input and its end", args: []string{"cat"}, stdin: strings.NewReader("in\nput"), wantOut: "in\nput"},
		{name: "much", args: []string{"lines", "20000"}, wantOut: "line 19999\n"},
		{name: "terminal", args: []string{"echo", "hi"}, tty: true, wantOut: "hi\r\n"},
		{name: "terminal's exit code", args: []string{"exit", "8"}, tty: true, wantCode: 8},
		{name: "background process holds the output", args: []string{"background"}, wantOut: "started\n"},
	}
	t.Run("container", func(t *testing.T) { // so that the container outlives its parallel tests
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				var out, errOut bytes.Buffer
				opts := container.ExecOptions{
					Args: append([]string{"/program"}, tt.args...), TTY: tt.tty, Stdin: tt.stdin, Stdout: &out, Stderr: &errOut,
				}
				if tt.tty {
					opts.Stderr = nil
				}
				code, err := r.Exec(ctx(t), "a", opts)
				if err != nil || code != tt.wantCode {
					t.Errorf("got code %d, %v, want %d", code, err, tt.wantCode)
				}
				if !strings.Contains(out.String(), tt.wantOut) || errOut.String() != tt.wantErr {
					t.Errorf("got output %q and %q, want %q and %q", tail(out.String()), errOut.String(), tt.wantOut, tt.wantErr)
				}
			})
		}
		t.Run("missing executable", func(t *testing.T) {
			t.Parallel()
			_, err := r.Exec(ctx(t), "a", container.ExecOptions{Args: []string{"/nope"}, Stdout: &bytes.Buffer{}})
			if got := new(container.StartError); !errors.As(err, &got) || got.ExitCode != 127 {
				t.Errorf("got %v, want a StartError with code 127", err)
			}
		})
		t.Run("resize", func(t *testing.T) {
			t.Parallel()
			sizes := make(chan container.Size)
			out := &notifying{wrote: make(chan struct{}, 1)}
			go func() {
				<-out.wrote // the first size, before the change
				sizes <- container.Size{Width: 132, Height: 43}
			}()
			opts := container.ExecOptions{Args: []string{"/program", "size", "132x43"}, TTY: true, Stdout: out, Resize: sizes}
			if code, err := r.Exec(ctx(t), "a", opts); code != 0 || err != nil {
				t.Errorf("got %d, %v, output %q", code, err, out.String())
			}
		})
		t.Run("end of context kills", func(t *testing.T) {
			t.Parallel()
			h.execCancelled(t, r)
		})
	})
}

// execCancelled looks from inside the container whether the process is gone.
func (h Harness) execCancelled(t *testing.T, r container.Runtime) {
	t.Helper()
	running, cancel := context.WithCancel(ctx(t))
	out := &notifying{wrote: make(chan struct{}, 1)}
	go func() {
		<-out.wrote
		cancel()
	}()
	_, err := r.Exec(running, "a", container.ExecOptions{Args: []string{"/program", "wait", "99"}, Stdout: out})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want %v", err, context.Canceled)
	}
	eventually(t, "end of the process", func() bool {
		var list bytes.Buffer
		code, err := r.Exec(ctx(t), "a", container.ExecOptions{Args: []string{"/program", "commands"}, Stdout: &list})
		if code != 0 || err != nil {
			t.Fatalf("listing processes: %d, %v", code, err)
		}
		return !strings.Contains(list.String(), "/program wait 99")
	})
}

func tail(s string) string { return s[max(0, len(s)-200):] }

// notifying is a buffer that tells about its first write.
type notifying struct {
	wrote chan struct{}

	// mu guards the buffer.
	mu sync.Mutex
	b  bytes.Buffer
}

func (n *notifying) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case n.wrote <- struct{}{}:
	default:
	}
	return n.b.Write(p)
}

func (n *notifying) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}
