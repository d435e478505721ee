package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/logfile"
	"github.com/weft-dev/weft/node/pod"
)

// target finds a running container of a request, or answers it with an error.
func (s *Server) target(w http.ResponseWriter, r *http.Request) (view *pod.View, c pod.ContainerView, ok bool) {
	name, containerName := r.PathValue("pod"), r.PathValue("container")
	view, ok = s.o.Pods.Pod(r.PathValue("namespace"), name)
	if !ok || !sameUID(view, r) {
		http.Error(w, fmt.Sprintf("pod %q does not exist", name), http.StatusNotFound)
		return nil, c, false
	}
	c, ok = view.Containers[containerName]
	if !ok || !c.IsRunning() {
		http.Error(w, fmt.Sprintf("container not found (%q)", containerName), http.StatusNotFound)
		return nil, c, false
	}
	return view, c, true
}

func sameUID(view *pod.View, r *http.Request) bool {
	uid := r.PathValue("uid")
	return uid == "" || uid == string(view.Pod.UID)
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	view, c, ok := s.target(w, r)
	if !ok {
		return
	}
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, executor{runtime: s.o.Runtime, id: c.Current.ID, stdin: options.Stdin}, view.Pod.Name, string(view.Pod.UID), c.Spec.Name,
		r.URL.Query()["command"], options, idleTimeout, createTimeout, remotecommand.SupportedStreamingProtocols)
}

// executor runs commands in one container.
type executor struct {
	runtime container.Runtime
	id      string
	// stdin says whether input was asked for: with WebSockets there is always a stream for it.
	stdin bool
}

var _ remotecommand.Executor = executor{}

// ExecInContainer runs a command with the streams of a request.
func (e executor) ExecInContainer(
	ctx context.Context, _, _, _ string, cmd []string, in io.Reader, out, errOut io.WriteCloser, tty bool,
	resize <-chan remotecommand.TerminalSize, timeout time.Duration,
) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	o := container.ExecOptions{Args: cmd, TTY: tty, Stdout: io.Discard}
	if e.stdin && in != nil {
		o.Stdin = in
	}
	if out != nil {
		o.Stdout = out
	}
	if errOut != nil && !tty {
		o.Stderr = errOut
	}
	if tty {
		sizes := make(chan container.Size)
		o.Resize = sizes
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go forwardSizes(ctx, resize, sizes)
	}
	code, err := e.runtime.Exec(ctx, e.id, o)
	if err != nil {
		return err //nolint:wrapcheck // the runtime's words are what users see
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
	}
	return nil
}

func forwardSizes(ctx context.Context, in <-chan remotecommand.TerminalSize, out chan<- container.Size) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, open := <-in:
			if !open {
				return
			}
			select {
			case out <- container.Size{Width: size.Width, Height: size.Height}:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	view, c, ok := s.target(w, r)
	if !ok {
		return
	}
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a := attacher{path: c.LogPath, ended: s.ended(r.Context(), c, false), stdin: options.Stdin}
	remotecommand.ServeAttach(w, r, a, view.Pod.Name, string(view.Pod.UID), c.Spec.Name, options, idleTimeout, createTimeout,
		remotecommand.SupportedStreamingProtocols)
}

// attacher shows the output of one container.
type attacher struct {
	path  string
	ended <-chan struct{}
	// stdin says whether input was asked for.
	stdin bool
}

var _ remotecommand.Attacher = attacher{}

// AttachContainer writes what the container writes from now on. Its input cannot be attached to: the monitor that holds it outlives
// the agent and takes none.
func (a attacher) AttachContainer(
	ctx context.Context, _, _, _ string, _ io.Reader, out, errOut io.WriteCloser, tty bool, _ <-chan remotecommand.TerminalSize,
) error {
	if a.stdin {
		return errors.New("attaching to the standard input of a container is not supported by this node; use exec")
	}
	var stdout, stderr io.Writer
	if out != nil {
		stdout = out
	}
	if errOut != nil {
		stderr = errOut
	}
	if tty {
		stderr = stdout
	}
	o := logfile.Options{Path: a.path, Follow: true, Ended: a.ended, Tail: 0}
	return logfile.Read(ctx, o, stdout, stderr) //nolint:wrapcheck // says what it did
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("pod")
	view, ok := s.o.Pods.Pod(r.PathValue("namespace"), name)
	if !ok || !sameUID(view, r) || view.NetNS == "" {
		http.Error(w, fmt.Sprintf("pod %q does not exist", name), http.StatusNotFound)
		return
	}
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, forwarder{netns: view.NetNS}, name, string(view.Pod.UID), options, idleTimeout, createTimeout,
		portforward.SupportedProtocols)
}
