package pod

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/status"
)

// Limits of a termination message, as documented by the API.
const (
	maxMessage      = 4096
	maxLogMessage   = 2048
	maxMessageLines = 80
	exitLost        = 137
	messageLost     = "The container could not be located when the pod was terminated"
)

// await waits for the end of a container and reports it. It returns early when the agent stops.
func (w *Worker) await(u *unit, spec *v1.Container, id, log string) {
	for {
		s, err := w.o.Runtime.Wait(w.ctx, id)
		if w.ctx.Err() != nil {
			return
		}
		if err == nil || isGone(err) {
			if err != nil {
				s = container.Status{State: container.StateUnknown, FinishedAt: time.Now()}
			}
			message := w.terminationMessage(spec, id, log, s)
			w.mail.put(func() { w.exited(u, id, s, message) })
			return
		}
		w.log.Warn("Waiting for a container failed", "container", u.name, "err", err)
		select {
		case <-w.ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// exited notes the end of a container. It runs on the worker's goroutine.
func (w *Worker) exited(u *unit, id string, s container.Status, message string) {
	if u.Current == nil || u.Current.ID != id || !u.Current.Running {
		return
	}
	if u.endProbes != nil {
		u.endProbes()
		u.endProbes = nil
	}
	u.stop, u.Ready, u.Started = nil, false, false
	if u.op == opStopping {
		u.op = opNone
	}
	*u.Current = ended(*u.Current, s, message)
}

// ended is an attempt with its result.
func ended(a status.Attempt, s container.Status, message string) status.Attempt {
	a.Running, a.FinishedAt, a.ExitCode, a.Message = false, s.FinishedAt, s.ExitCode, message
	if a.FinishedAt.IsZero() {
		a.FinishedAt = time.Now()
	}
	if a.StartedAt.IsZero() {
		a.StartedAt = s.StartedAt
	}
	switch {
	case s.State == container.StateUnknown:
		a.Reason, a.ExitCode = status.ReasonStatusUnknown, exitLost
		if a.Message == "" {
			a.Message = messageLost
		}
	case s.OOMKilled:
		a.Reason = status.ReasonOOMKilled
	case s.ExitCode == 0:
		a.Reason = status.ReasonCompleted
	default:
		a.Reason = status.ReasonError
	}
	return a
}

// terminationMessage is what the container wrote to its file, or where it asked for it the end of its log.
func (w *Worker) terminationMessage(c *v1.Container, id, log string, s container.Status) string {
	file := filepath.Join(w.dir, "containers", c.Name, id)
	defer os.Remove(file) //nolint:errcheck // removed with the pod at the latest
	message, err := head(file, maxMessage)
	if err != nil {
		w.log.Debug("Reading a termination message failed", "container", c.Name, "err", err)
	}
	failed := s.ExitCode != 0 || s.OOMKilled
	if message != "" || c.TerminationMessagePolicy != v1.TerminationMessageFallbackToLogsOnError || !failed {
		return message
	}
	return logTail(log)
}

func head(file string, limit int64) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("opening the message: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	raw, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return "", fmt.Errorf("reading the message: %w", err)
	}
	return string(raw), nil
}

// logTail is the end of a log in CRI format without its time stamps.
func logTail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // read only
	if info, err := f.Stat(); err == nil && info.Size() > 4*maxMessage {
		_, _ = f.Seek(-4*maxMessage, io.SeekEnd)
	}
	raw, err := io.ReadAll(f)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
	if len(lines) > maxMessageLines {
		lines = lines[len(lines)-maxMessageLines:]
	}
	var b strings.Builder
	for _, line := range lines {
		fields := strings.SplitN(line, " ", 4) // time, stream, tag, text
		if len(fields) < 4 {
			continue
		}
		b.WriteString(fields[3])
		if fields[2] == "F" {
			b.WriteByte('\n')
		}
	}
	text := b.String()
	if len(text) > maxLogMessage {
		text = text[len(text)-maxLogMessage:]
	}
	return text
}
