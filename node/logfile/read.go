package logfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Options say what to read.
type Options struct {
	// Path of the log. The file may be replaced while it is followed.
	Path string
	// Follow goes on when the end is reached, until Ended is closed and everything is read.
	Follow bool
	Ended  <-chan struct{}
	// Tail is how many entries to read from the end, negative for all.
	Tail int64
	// Since leaves out what is older; zero leaves out nothing.
	Since time.Time
	// Timestamps writes the time of each line before it.
	Timestamps bool
	// Limit is how many bytes to write at most, zero for no limit.
	Limit int64
}

// errLimit ends reading when the limit is reached.
var errLimit = errors.New("limit reached")

// Read writes a log to stdout and stderr; a nil writer leaves out its stream. It returns when everything is written, or when ctx
// ends, which is no error.
func Read(ctx context.Context, o Options, stdout, stderr io.Writer) error {
	f, err := os.Open(o.Path)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := seekTail(f, o.Tail); err != nil {
		return err
	}
	r := &reader{options: o, stdout: stdout, stderr: stderr, left: o.Limit, begin: map[string]bool{Stdout: true, Stderr: true}}
	if !o.Follow {
		return r.drain(f)
	}
	w, err := newWatcher(o.Path)
	if err != nil {
		return err
	}
	defer w.close()
	f, err = r.follow(ctx, f, w)
	return err
}

// reader writes entries.
type reader struct {
	options        Options
	stdout, stderr io.Writer
	left           int64
	// begin says for each stream whether the next entry begins a line.
	begin map[string]bool
	// rest is the begin of an entry whose end is not written yet.
	rest []byte
}

// follow reads f to its end again and again, and the files that replace it. It returns the file that is open.
func (r *reader) follow(ctx context.Context, f *os.File, w *watcher) (*os.File, error) {
	for {
		ended := closed(r.options.Ended) // before reading, so that nothing written before the end is missed
		if err := r.drain(f); err != nil {
			return f, err
		}
		next, err := replaced(f, r.options.Path)
		if err != nil {
			return f, err
		}
		if next != nil {
			// What was written between the last read and the replacement is still in the old file.
			err := r.drain(f)
			_ = f.Close()
			f, r.rest = next, nil
			if err != nil {
				return f, err
			}
			continue
		}
		if ended {
			return f, nil
		}
		select {
		case <-ctx.Done():
			return f, nil
		case <-r.options.Ended:
		case <-w.changed:
		}
	}
}

// drain writes all entries up to the end of f. An entry without its end is kept for the next time.
func (r *reader) drain(f *os.File) error {
	in := bufio.NewReaderSize(f, 64<<10)
	for {
		raw, err := in.ReadBytes('\n')
		if len(r.rest) > 0 {
			raw = append(r.rest, raw...)
			r.rest = nil
		}
		if errors.Is(err, io.EOF) {
			r.rest = raw
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		if err := r.write(raw); err != nil {
			if errors.Is(err, errLimit) {
				return nil
			}
			return err
		}
	}
}

func (r *reader) write(raw []byte) error {
	l, err := parse(raw)
	if err != nil {
		return nil //nolint:nilerr // a broken entry, as after a full disk, must not hide the ones after it
	}
	if !r.options.Since.IsZero() && l.at.Before(r.options.Since) {
		return nil
	}
	out := r.stdout
	if l.stream == Stderr {
		out = r.stderr
	}
	if out == nil {
		return nil
	}
	var b bytes.Buffer
	if r.options.Timestamps && r.begin[l.stream] {
		b.Write(l.stamp)
		b.WriteByte(' ')
	}
	b.Write(l.text)
	if !l.partial {
		b.WriteByte('\n')
	}
	r.begin[l.stream] = !l.partial
	data := b.Bytes()
	if r.options.Limit > 0 && int64(len(data)) > r.left {
		data = data[:r.left]
	}
	if _, err := out.Write(data); err != nil {
		return fmt.Errorf("sending the log: %w", err)
	}
	r.left -= int64(len(data))
	if r.options.Limit > 0 && r.left <= 0 {
		return errLimit
	}
	return nil
}

// replaced returns the new file at path when it is not f any more.
func replaced(f *os.File, path string) (*os.File, error) {
	next, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // between two files, or removed with its pod
	}
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	old, errOld := f.Stat()
	now, errNow := next.Stat()
	if errOld != nil || errNow != nil || os.SameFile(old, now) {
		_ = next.Close()
		return nil, errors.Join(errOld, errNow)
	}
	return next, nil
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
