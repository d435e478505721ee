package supervise

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
)

// Record is what a supervisor writes down about a process that it has started.
type Record struct {
	PID int `json:"pid"`
	// Start is the process's start time in clock ticks after boot. With the PID it identifies a process until the next boot.
	Start uint64 `json:"start"`
	// Boot is the kernel's id of the boot, without which Start could repeat.
	Boot string `json:"boot"`
	// Fingerprint covers the executable's contents, the arguments and the environment.
	Fingerprint string `json:"fingerprint"`
}

// Find reads a pid file and reports whether the process that it names is alive. A file that is missing is no error.
func Find(pidFile string) (Record, bool, error) {
	data, err := os.ReadFile(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, false, nil
	}
	if err != nil {
		return Record{}, false, fmt.Errorf("reading pid file: %w", err)
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		// A file torn by a power cut names no process; the next start writes it anew.
		return Record{}, false, nil //nolint:nilerr // As above.
	}
	return r, r.alive(), nil
}

func (r Record) alive() bool {
	start, state, err := stat(r.PID)
	return err == nil && start == r.Start && state != 'Z' && bootID() == r.Boot
}

func (r Record) write(pidFile string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding pid file: %w", err)
	}
	temp := pidFile + ".new"
	if err := os.WriteFile(temp, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing pid file: %w", err)
	}
	if err := os.Rename(temp, pidFile); err != nil {
		return fmt.Errorf("writing pid file: %w", err)
	}
	return nil
}

// newRecord describes a running process.
func newRecord(pid int, fingerprint string) (Record, error) {
	start, _, err := stat(pid)
	if err != nil {
		return Record{}, err
	}
	return Record{PID: pid, Start: start, Boot: bootID(), Fingerprint: fingerprint}, nil
}

// stat reads start time and state of a process. See proc_pid_stat(5): the name in parentheses may contain anything.
func stat(pid int) (start uint64, state byte, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, fmt.Errorf("reading start time of process %d: %w", pid, err)
	}
	const stateField, startField = 0, 19 // Counted from the field after the name.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) <= startField {
		return 0, 0, fmt.Errorf("reading start time of process %d: %d fields", pid, len(fields))
	}
	start, err = strconv.ParseUint(string(fields[startField]), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("reading start time of process %d: %w", pid, err)
	}
	return start, fields[stateField][0], nil
}

func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(data))
}

// fingerprint tells whether a running process is what would be started now.
func fingerprint(path string, args, env []string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading executable: %w", err)
	}
	defer func() { _ = f.Close() }()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", fmt.Errorf("reading executable %q: %w", path, err)
	}
	if err := json.NewEncoder(hash).Encode([][]string{args, env}); err != nil {
		return "", fmt.Errorf("hashing arguments: %w", err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
