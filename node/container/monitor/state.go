package monitor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// State is what a monitor knows of its container, as it stands in status.json.
type State struct {
	// Monitor is the process that writes the file, Process the container's first.
	Monitor ProcessID `json:"monitor"`
	Process ProcessID `json:"process"`
	// StartedAt and FinishedAt are when the process was seen to run and to be gone; FinishedAt is zero while it runs.
	StartedAt  time.Time `json:"startedAt"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	// ExitCode is 128+n after signal n, which Signal is then.
	ExitCode  int  `json:"exitCode"`
	Signal    int  `json:"signal,omitempty"`
	OOMKilled bool `json:"oomKilled,omitempty"`
}

// Stopped reports whether the process has ended.
func (s State) Stopped() bool { return !s.FinishedAt.IsZero() }

// ReadState reads the state from a container's directory.
func ReadState(dir string) (State, error) {
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return State{}, fmt.Errorf("reading container status: %w", err)
	}
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return State{}, fmt.Errorf("decoding container status in %q: %w", dir, err)
	}
	return s, nil
}

// WriteState replaces the state in a container's directory at once, so that a reader never sees half of it.
func WriteState(dir string, s State) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encoding container status: %w", err)
	}
	file := filepath.Join(dir, stateFile)
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		return fmt.Errorf("writing container status: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("replacing container status: %w", err)
	}
	return nil
}

// ProcessID names a process for good: a number alone is given to another process one day.
type ProcessID struct {
	PID int `json:"pid"`
	// Boot is the kernel's boot identifier and Start the process's start time in clock ticks since that boot.
	Boot  string `json:"boot"`
	Start uint64 `json:"start"`
}

// Identify returns the identity of the process that has a number now.
func Identify(pid int) (ProcessID, error) {
	start, err := startTime(pid)
	if err != nil {
		return ProcessID{}, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ProcessID{}, fmt.Errorf("reading boot identifier: %w", err)
	}
	return ProcessID{PID: pid, Boot: string(bytes.TrimSpace(boot)), Start: start}, nil
}

// Alive reports whether the process is there and no zombie.
func (p ProcessID) Alive() bool {
	if p.PID <= 0 {
		return false
	}
	now, err := Identify(p.PID)
	return err == nil && now == p
}

var errZombie = errors.New("process is a zombie")

// startTime reads field 22 of /proc/<pid>/stat. The second field, the name in parentheses, may hold blanks and parentheses.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("reading process: %w", err)
	}
	const state, start = 0, 19 // counted from the field after the name
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) <= start {
		return 0, fmt.Errorf("reading process %d: unexpected format", pid)
	}
	if s := fields[state][0]; s == 'Z' || s == 'X' {
		return 0, errZombie
	}
	return strconv.ParseUint(string(fields[start]), 10, 64)
}
