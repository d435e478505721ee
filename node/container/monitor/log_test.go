package monitor

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// newLog returns a log whose lines all have the time "T".
func newLog(tb testing.TB) *criLog {
	tb.Helper()
	l, err := openLog(filepath.Join(tb.TempDir(), "0.log"))
	if err != nil {
		tb.Fatal(err)
	}
	second := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	l.now = func() time.Time {
		second = second.Add(time.Second)
		return second
	}
	tb.Cleanup(func() { _ = l.close() })
	return l
}

func read(tb testing.TB, path string) string {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}

func TestLogCopy(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxLogLine)
	tests := []struct {
		name string
		in   string
		want []string
	}{
		{name: "nothing"},
		{name: "lines", in: "a\nb\n", want: []string{"F a", "F b"}},
		{name: "empty line", in: "\n", want: []string{"F "}},
		{name: "line without an end", in: "a\nb", want: []string{"F a", "P b"}},
		{name: "carriage return stays", in: "a\r\n", want: []string{"F a\r"}},
		{name: "long line", in: long + "yz\nb\n", want: []string{"P " + long, "F yz", "F b"}},
		{name: "longest whole line", in: long[1:] + "\n", want: []string{"F " + long[1:]}},
	}
	readers := map[string]func(io.Reader) io.Reader{
		"at once":      func(r io.Reader) io.Reader { return r },
		"byte by byte": iotest.OneByteReader,
		"half reads":   iotest.HalfReader,
		"with the end": iotest.DataErrReader,
	}
	for _, tt := range tests {
		for how, reader := range readers {
			t.Run(tt.name+" "+how, func(t *testing.T) {
				t.Parallel()
				l := newLog(t)
				l.copy(Stdout, reader(strings.NewReader(tt.in)))
				var got []string
				for line := range strings.Lines(read(t, l.path)) {
					stamp, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
					if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil {
						t.Errorf("line %q: %v", line, err)
					}
					got = append(got, strings.TrimPrefix(rest, "stdout "))
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("log (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestLogRotation(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	l.max = 100
	for range 10 {
		l.copy(Stderr, strings.NewReader(strings.Repeat("x", 80)+"\n"))
	}
	files, err := filepath.Glob(l.path + "*")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != maxLogFiles {
		t.Errorf("got %d files, want %d: %v", len(files), maxLogFiles, files)
	}
	for _, f := range files {
		if got := strings.Count(read(t, f), "\n"); got != 1 {
			t.Errorf("%s has %d lines, want 1", f, got)
		}
	}
	// The newest are kept: the clock was read for ten lines and for eight files moved before the last.
	if got := read(t, l.path); !strings.HasPrefix(got, "2026-01-02T03:04:18Z stderr F xx") {
		t.Errorf("current log is %q", got)
	}
}

func TestLogReopened(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	l.copy(Stdout, strings.NewReader("a\n"))
	again, err := openLog(l.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.close() }()
	again.copy(Stdout, strings.NewReader("b\n"))
	if got := strings.Count(read(t, l.path), "\n"); got != 2 || again.size != int64(len(read(t, l.path))) {
		t.Errorf("got %d lines and size %d, want both lines counted", got, again.size)
	}
}

func BenchmarkLogCopy(b *testing.B) {
	l := newLog(b)
	line := strings.Repeat("x", 99) + "\n"
	text := strings.Repeat(line, 10_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		l.copy(Stdout, strings.NewReader(text))
	}
}
