package logfile

import (
	"bytes"
	"fmt"
	"time"
)

// The streams of a container.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// line is one entry of a log.
type line struct {
	stamp  []byte
	at     time.Time
	stream string
	// partial says that the container's line goes on in the next entry.
	partial bool
	text    []byte
}

// parse reads "<RFC3339Nano> <stream> <tags> <text>". Tags are separated by colons and the first says whether the entry is
// complete (F) or partial (P).
func parse(raw []byte) (line, error) {
	raw = bytes.TrimSuffix(raw, []byte("\n"))
	stamp, rest, ok := bytes.Cut(raw, []byte(" "))
	if !ok {
		return line{}, fmt.Errorf("log entry without a stream: %q", raw)
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return line{}, fmt.Errorf("reading the time of a log entry: %w", err)
	}
	stream, rest, ok := bytes.Cut(rest, []byte(" "))
	if !ok || string(stream) != Stdout && string(stream) != Stderr {
		return line{}, fmt.Errorf("log entry with the unknown stream %q", stream)
	}
	tags, text, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return line{}, fmt.Errorf("log entry without a text: %q", raw)
	}
	tag, _, _ := bytes.Cut(tags, []byte(":"))
	return line{stamp: stamp, at: at, stream: string(stream), partial: string(tag) == "P", text: text}, nil
}
