package monitor

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// console is the socket on which an OCI runtime hands over the other end of a terminal. Its path is relative to the working
// directory, which the runtime shares: an absolute one may be longer than the 107 bytes that a socket's name can have.
type console struct{ fd int }

func listenConsole() (*console, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making console socket: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: consoleFile})
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listening on console socket: %w", err), unix.Close(fd))
	}
	return &console{fd: fd}, nil
}

// terminal returns what the runtime sent. It is called when the runtime has succeeded and does not wait then.
func (c *console) terminal() (int, error) {
	if err := unix.SetNonblock(c.fd, true); err != nil {
		return -1, err
	}
	conn, _, err := unix.Accept4(c.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("accepting on console socket: %w", err)
	}
	defer func() { _ = unix.Close(conn) }()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := recvmsg(conn, make([]byte, 4096), oob)
	if err != nil {
		return -1, fmt.Errorf("receiving terminal: %w", err)
	}
	files, err := ParseFiles(oob[:n])
	if err != nil {
		return -1, err
	}
	if len(files) != 1 {
		return -1, fmt.Errorf("receiving terminal: got %d files", len(files))
	}
	return files[0], nil
}

func (c *console) close() {
	_ = unix.Close(c.fd)
	_ = os.Remove(consoleFile)
}
