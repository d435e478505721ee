package logfile

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// block is how much is read at once while looking for the begin of the last lines.
const block = 16 << 10

// seekTail moves to the begin of the last n entries; a negative n means all.
func seekTail(f *os.File, n int64) error {
	if n < 0 {
		return nil
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("finding the end of the log: %w", err)
	}
	if n == 0 || end == 0 {
		return nil
	}
	buf := make([]byte, block)
	found := int64(-1) // the line break at the end of the last entry does not count
	for pos := end; pos > 0; {
		size := min(pos, block)
		pos -= size
		if _, err := f.ReadAt(buf[:size], pos); err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		chunk := buf[:size]
		for i := bytes.LastIndexByte(chunk, '\n'); i >= 0; i = bytes.LastIndexByte(chunk[:i], '\n') {
			if found++; found == n {
				_, err := f.Seek(pos+int64(i)+1, io.SeekStart)
				return wrapSeek(err)
			}
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return wrapSeek(err)
}

func wrapSeek(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("moving in the log: %w", err)
}
