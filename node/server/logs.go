package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/weft-dev/weft/node/logfile"
	"github.com/weft-dev/weft/node/pod"
	"github.com/weft-dev/weft/node/status"
)

// logs answers with the log of a container.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	namespace, name, containerName := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")
	view, ok := s.o.Pods.Pod(namespace, name)
	if !ok {
		http.Error(w, fmt.Sprintf("pod %q does not exist", name), http.StatusNotFound)
		return
	}
	c, ok := view.Containers[containerName]
	if !ok {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", containerName, name), http.StatusNotFound)
		return
	}
	q, err := parseQuery(r.URL.Query(), time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	path, err := logPath(name, containerName, c, q.previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	q.options.Path = path
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	q.options.Ended = s.ended(ctx, c, q.previous)
	out := flushing{w: w}
	var stdout, stderr io.Writer = out, out
	switch q.stream {
	case "Stdout":
		stderr = nil
	case "Stderr":
		stdout = nil
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	out.flush() // a follower wants to know at once that the log is open
	if err := logfile.Read(ctx, q.options, stdout, stderr); err != nil && ctx.Err() == nil {
		s.o.Log.Warn("Sending a log failed", "pod", name, "container", containerName, "err", err)
		_, _ = io.WriteString(w, "the log could not be read to its end\n")
	}
}

// ended is closed when the attempt whose log is read has ended.
func (s *Server) ended(ctx context.Context, c pod.ContainerView, previous bool) <-chan struct{} {
	done := make(chan struct{})
	if previous || !c.IsRunning() {
		close(done)
		return done
	}
	go func() {
		defer close(done)
		_, _ = s.o.Runtime.Wait(ctx, c.Current.ID)
	}()
	return done
}

// logPath is the file of the newest attempt or of the one before. Errors are kubelet's, which kubectl shows.
func logPath(name, containerName string, c pod.ContainerView, previous bool) (string, error) {
	switch {
	case previous:
		path := filepath.Join(filepath.Dir(c.LogPath), strconv.Itoa(int(c.Restarts)-1)+".log")
		if _, err := os.Stat(path); c.LogPath == "" || c.Restarts == 0 || err != nil {
			return "", fmt.Errorf("previous terminated container %q in pod %q not found", containerName, name)
		}
		return path, nil
	case c.LogPath != "":
		return c.LogPath, nil
	case c.Waiting == nil:
		return "", fmt.Errorf("container %q in pod %q is waiting to start: %s", containerName, name, status.ContainerCreating)
	case c.Waiting.Reason == status.ErrImagePull:
		return "", fmt.Errorf("container %q in pod %q is waiting to start: image can't be pulled", containerName, name)
	case c.Waiting.Reason == status.ImagePullBackOff:
		return "", fmt.Errorf("container %q in pod %q is waiting to start: trying and failing to pull image", containerName, name)
	default:
		return "", fmt.Errorf("container %q in pod %q is waiting to start: %v", containerName, name, c.Waiting.Reason)
	}
}

// query is what a request for a log asks for.
type query struct {
	options  logfile.Options
	previous bool
	stream   string
}

func parseQuery(v url.Values, now time.Time) (query, error) {
	q := query{options: logfile.Options{Tail: -1}, stream: v.Get("stream")}
	var err error
	number := func(name string, least int64, set func(int64)) {
		raw := v.Get(name)
		if raw == "" || err != nil {
			return
		}
		n, parseErr := strconv.ParseInt(raw, 10, 64)
		if parseErr != nil || n < least {
			err = fmt.Errorf("invalid value for %s: %q", name, raw)
			return
		}
		set(n)
	}
	if v.Get("tail") != "all" {
		number("tail", 0, func(n int64) { q.options.Tail = n })
	}
	number("tailLines", 0, func(n int64) { q.options.Tail = n })
	number("limitBytes", 1, func(n int64) { q.options.Limit = n })
	number("sinceSeconds", 1, func(n int64) { q.options.Since = now.Add(-time.Duration(n) * time.Second) })
	if raw := v.Get("sinceTime"); raw != "" && err == nil {
		if q.options.Since, err = time.Parse(time.RFC3339, raw); err != nil {
			err = fmt.Errorf("invalid value for sinceTime: %q", raw)
		}
	}
	q.options.Follow, q.options.Timestamps, q.previous = isSet(v, "follow"), isSet(v, "timestamps"), isSet(v, "previous")
	return q, err
}

func isSet(v url.Values, name string) bool {
	on, err := strconv.ParseBool(v.Get(name))
	return err == nil && on
}

// flushing sends every write at once.
type flushing struct{ w http.ResponseWriter }

// Write writes and flushes.
func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	f.flush()
	return n, err //nolint:wrapcheck // an io.Writer
}

func (f flushing) flush() {
	if flusher, ok := f.w.(http.Flusher); ok {
		flusher.Flush()
	}
}
