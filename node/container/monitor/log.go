package monitor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Limits of the log, kubelet's defaults: containerLogMaxSize, containerLogMaxFiles (the current one included), and the length at
// which CRI implementations break a line into partial ones.
const (
	maxLogSize  = 10 << 20
	maxLogFiles = 5
	maxLogLine  = 16 << 10
)

// Stream is a name that CRI gives to an output.
type Stream string

// The streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// criLog writes lines in the format of CRI: "<RFC3339Nano> <stream> <F or P> <content>". It moves a full file aside and begins
// a new one under the same name.
type criLog struct {
	path string
	now  func() time.Time
	max  int64

	// mu guards everything below.
	mu   sync.Mutex
	file *os.File
	size int64
}

func openLog(path string) (*criLog, error) {
	l := &criLog{path: path, now: time.Now, max: maxLogSize}
	return l, l.open()
}

func (l *criLog) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("opening log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("reading size of log: %w", err), f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// add appends one line to b in the log's format; full says that its end was seen.
func (l *criLog) add(b []byte, stream Stream, line []byte, full bool) []byte {
	tag := byte('P')
	if full {
		tag = 'F'
	}
	b = l.now().UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(append(append(b, ' '), stream...), ' ', tag, ' ')
	return append(append(b, line...), '\n')
}

// write adds lines in the log's format to the file, all in one system call.
func (l *criLog) write(lines []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(lines)) > l.max {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(lines)
	l.size += int64(n)
	if err != nil {
		return fmt.Errorf("writing log: %w", err)
	}
	return nil
}

func (l *criLog) rotate() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("closing full log: %w", err)
	}
	// Nanoseconds, because a container may fill more than one file in a second.
	aside := l.path + "." + l.now().UTC().Format("20060102-150405.000000000")
	if err := os.Rename(l.path, aside); err != nil {
		return fmt.Errorf("moving full log aside: %w", err)
	}
	if old, err := filepath.Glob(l.path + ".*"); err == nil && len(old) >= maxLogFiles {
		slices.Sort(old)
		for _, name := range old[:len(old)-maxLogFiles+1] {
			_ = os.Remove(name) // an old log that stays is no reason to stop logging
		}
	}
	return l.open()
}

func (l *criLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// copy logs what it reads until the end. An error while writing, as on a full disk, loses lines but never stops reading: the
// container would stop at its next write.
func (l *criLog) copy(stream Stream, r io.Reader) {
	buf := make([]byte, 0, maxLogLine)
	var lines []byte
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		rest := buf
		for i := bytes.IndexByte(rest, '\n'); i >= 0; i = bytes.IndexByte(rest, '\n') {
			lines = l.add(lines, stream, rest[:i], true)
			rest = rest[i+1:]
		}
		if len(rest) == cap(buf) || err != nil && len(rest) > 0 {
			lines = l.add(lines, stream, rest, false)
			rest = nil
		}
		buf = buf[:copy(buf, rest)]
		if len(lines) > 0 {
			_ = l.write(lines)
			lines = lines[:0]
		}
		if err != nil {
			return
		}
	}
}
