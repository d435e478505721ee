package logfile

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// entry is one entry of a log, n seconds after the epoch.
func entry(n int, stream, tag, text string) string {
	return fmt.Sprintf("%s %s %s %s\n", epoch.Add(time.Duration(n)*time.Second).Format(time.RFC3339Nano), stream, tag, text)
}

const stamp = "2026-01-02T03:04:"

func TestRead(t *testing.T) {
	t.Parallel()
	content := entry(1, Stdout, "F", "one") + entry(2, Stderr, "F", "two") + "broken\n" + entry(3, Stdout, "P", "thr") +
		entry(4, Stdout, "F", "ee") + entry(5, Stdout, "F", "") + entry(6, Stdout, "F:x", "six")
	for _, tt := range []struct {
		name       string
		options    Options
		wantOut    string
		wantErr    string
		dropStdout bool
	}{
		{name: "all", options: Options{Tail: -1}, wantOut: "one\nthree\n\nsix\n", wantErr: "two\n"},
		{name: "nothing", options: Options{Tail: 0}},
		{name: "tail", options: Options{Tail: 2}, wantOut: "\nsix\n"},
		{name: "tail of more than there is", options: Options{Tail: 100}, wantOut: "one\nthree\n\nsix\n", wantErr: "two\n"},
		{name: "since", options: Options{Tail: -1, Since: epoch.Add(5 * time.Second)}, wantOut: "\nsix\n"},
		{
			name: "timestamps", options: Options{Tail: -1, Timestamps: true},
			wantOut: stamp + "06Z one\n" + stamp + "08Z three\n" + stamp + "10Z \n" + stamp + "11Z six\n", wantErr: stamp + "07Z two\n",
		},
		{name: "limit", options: Options{Tail: -1, Limit: 6}, wantOut: "one\n", wantErr: "tw"},
		{name: "one stream", options: Options{Tail: -1}, dropStdout: true, wantErr: "two\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.options.Path = filepath.Join(t.TempDir(), "0.log")
			if err := os.WriteFile(tt.options.Path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			var err error
			if tt.dropStdout {
				err = Read(t.Context(), tt.options, nil, &stderr)
			} else {
				err = Read(t.Context(), tt.options, &stdout, &stderr)
			}
			if err != nil {
				t.Fatal(err)
			}
			if stdout.String() != tt.wantOut || stderr.String() != tt.wantErr {
				t.Errorf("stdout %q, stderr %q, want %q and %q", stdout.String(), stderr.String(), tt.wantOut, tt.wantErr)
			}
		})
	}
}

func TestTailOverManyBlocks(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "0.log")
	var b strings.Builder
	for n := range 3000 {
		b.WriteString(entry(n, Stdout, "F", fmt.Sprint(n)))
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Read(t.Context(), Options{Path: path, Tail: 1500}, &out, nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), "\n"); got != 1500 || !strings.HasPrefix(out.String(), "1500\n") {
		t.Errorf("%d lines, the first is %q", got, strings.SplitN(out.String(), "\n", 2)[0])
	}
}

// lines collects what is written and lets a test wait for it.
type lines struct {
	mu  sync.Mutex // guards b
	b   bytes.Buffer
	got chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Write(p)
	select {
	case l.got <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *lines) await(t *testing.T, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		l.mu.Lock()
		have := l.b.String()
		l.mu.Unlock()
		if have == want {
			return
		}
		select {
		case <-l.got:
		case <-ctx.Done():
			t.Fatalf("got %q, want %q", have, want)
		}
	}
}

func TestFollowThroughRotationToTheEnd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "0.log")
	write := func(f *os.File, text string) {
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	create := func() *os.File {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	f := create()
	write(f, entry(0, Stdout, "F", "zero"))
	out := &lines{got: make(chan struct{}, 1)}
	ended, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- Read(t.Context(), Options{Path: path, Follow: true, Ended: ended, Tail: -1}, out, out)
	}()
	out.await(t, "zero\n")
	whole := entry(1, Stdout, "F", "one")
	write(f, whole[:20]) // an entry that is not complete yet
	write(f, whole[20:])
	out.await(t, "zero\none\n")

	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(f, entry(2, Stdout, "F", "two")) // the writer has not noticed yet
	next := create()
	write(next, entry(3, Stdout, "F", "three"))
	out.await(t, "zero\none\ntwo\nthree\n")

	write(next, entry(4, Stdout, "F", "last"))
	close(ended)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	out.await(t, "zero\none\ntwo\nthree\nlast\n")
}

func TestFollowEndsWithItsReader(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(entry(0, Stdout, "F", "zero")), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out := &lines{got: make(chan struct{}, 1)}
	done := make(chan error, 1)
	go func() { done <- Read(ctx, Options{Path: path, Follow: true, Tail: -1}, out, nil) }()
	out.await(t, "zero\n")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("error %v, want none", err)
	}
}
