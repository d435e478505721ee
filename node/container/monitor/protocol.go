package monitor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Socket is the file descriptor on which a monitor finds its SOCK_SEQPACKET socket to package container.
const Socket = 3

// maxMessage bounds a message; a job holds a few paths and a reply one error text.
const maxMessage = 64 << 10

// Job is the first message to a monitor: what to run. All paths in it are absolute. With it come the files for standard input,
// output and error of a process to execute, as far as it has no terminal.
type Job struct {
	// Runtime is the OCI runtime's executable, Root the directory for its own state.
	Runtime string `json:"runtime"`
	Root    string `json:"root"`
	// Hide is the path of a mount that the OCI runtime must not see, empty for none.
	Hide string `json:"hide,omitempty"`
	// ID is the container.
	ID string `json:"id"`
	// Dir is the working directory: the container's bundle, or the directory of one execution, which holds process.json.
	Dir string `json:"dir"`
	// Exec asks to run a process in a running container instead of starting one.
	Exec bool `json:"exec,omitempty"`
	// TTY says that the process has a terminal.
	TTY bool `json:"tty,omitempty"`
	// Stdin keeps the standard input of a container open; otherwise it is /dev/null.
	Stdin bool `json:"stdin,omitempty"`
	// Log is the file for the output of a container.
	Log string `json:"log,omitempty"`
	// OOMEvents is the file in the container's cgroup whose line "oom_kill <n>" counts the processes killed for its memory limit.
	OOMEvents string `json:"oomEvents,omitempty"`
}

// Reply is a message of the monitor. Starting a process ends in one with an Error or a State that runs; with a terminal for an
// execution the file of the terminal comes along. An execution ends in a second one whose State has stopped.
type Reply struct {
	// Error is why the process did not start.
	Error string `json:"error,omitempty"`
	State State  `json:"state,omitzero"`
}

// Names of files in Job.Dir.
const (
	stateFile   = "status.json"
	consoleFile = "console.sock"
	pidFile     = "pid"
	runtimeLog  = "runtime.log"
	monitorLog  = "monitor.log"
	// ProcessFile is the OCI process to execute.
	ProcessFile = "process.json"
)

// receive reads one message and the files that come with it. It returns io.EOF when the other side is gone.
func receive(fd int, message any) ([]int, error) {
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(3*4))
	n, oobn, _, _, err := recvmsg(fd, buf, oob)
	if err != nil {
		return nil, fmt.Errorf("receiving: %w", err)
	}
	if n == 0 {
		return nil, io.EOF
	}
	files, err := ParseFiles(oob[:oobn])
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(buf[:n], message); err != nil {
		return nil, fmt.Errorf("decoding message: %w", err)
	}
	return files, nil
}

func recvmsg(fd int, buf, oob []byte) (n, oobn, flags int, from unix.Sockaddr, err error) {
	for {
		n, oobn, flags, from, err = unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			return n, oobn, flags, from, err
		}
	}
}

// send writes one message with files. The other side being gone is no error: it has lost interest, the container has not.
func send(fd int, message any, files ...int) error {
	data, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encoding message: %w", err)
	}
	var oob []byte
	if len(files) > 0 {
		oob = unix.UnixRights(files...)
	}
	err = unix.Sendmsg(fd, data, oob, nil, unix.MSG_NOSIGNAL)
	if err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("sending: %w", err)
	}
	return nil
}

// ParseFiles returns the file descriptors in the control data of a message.
func ParseFiles(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parsing control message: %w", err)
	}
	var files []int
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, fmt.Errorf("parsing received files: %w", err)
		}
		files = append(files, fds...)
	}
	return files, nil
}
