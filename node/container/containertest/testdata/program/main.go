// Command program is what the containers of tests run. Its first argument says what to do.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(what string, args []string) error {
	switch what {
	case "echo":
		fmt.Println(strings.Join(args, " "))
	case "print": // as given, without a newline
		fmt.Print(args[0])
	case "complain":
		fmt.Fprintln(os.Stderr, strings.Join(args, " "))
	case "exit":
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(code)
	case "wait": // until SIGTERM, then exit with the code
		return wait(args[0])
	case "cat":
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	case "read":
		data, err := os.ReadFile(args[0])
		fmt.Print(string(data))
		return err
	case "link":
		target, err := os.Readlink(args[0])
		fmt.Println(target)
		return err
	case "write":
		return os.WriteFile(args[0], []byte(args[1]), 0o644)
	case "env":
		fmt.Println(strings.Join(os.Environ(), "\n"))
	case "id":
		return id()
	case "pwd":
		dir, err := os.Getwd()
		fmt.Println(dir)
		return err
	case "hostname":
		name, err := os.Hostname()
		fmt.Println(name)
		return err
	case "allocate":
		return allocate(args[0])
	case "processes":
		return processes(args[0])
	case "lines":
		return lines(args[0])
	case "size":
		return size(args[0])
	case "background": // leaves a process that holds the output
		fmt.Println("started")
		cmd := exec.Command("/proc/self/exe", "wait", "0")
		cmd.Stdout = os.Stdout
		return cmd.Start()
	case "commands":
		return commands()
	default:
		return fmt.Errorf("unknown command %q", what)
	}
	return nil
}

func wait(code string) error {
	n, err := strconv.Atoi(code)
	if err != nil {
		return err
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	fmt.Println("ready")
	<-terminated
	os.Exit(n)
	return nil
}

func id() error {
	groups, err := os.Getgroups()
	fmt.Printf("uid=%d gid=%d groups=%v\n", os.Getuid(), os.Getgid(), groups)
	return err
}

// allocate touches so many MiB and waits.
func allocate(mib string) error {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	memory := make([]byte, n<<20)
	for i := 0; i < len(memory); i += 4096 {
		memory[i] = 1
	}
	return wait("0")
}

// processes starts so many and tells how many the kernel let it start.
func processes(number string) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	for i := range n {
		cmd := exec.Command("/proc/self/exe", "wait", "0")
		if err := cmd.Start(); err != nil {
			fmt.Println("started", i)
			return nil
		}
	}
	fmt.Println("started", n)
	return nil
}

func lines(number string) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(os.Stdout)
	for i := range n {
		fmt.Fprintln(w, "line", i)
	}
	return w.Flush()
}

// size prints the terminal's size, each time that it changes, until it is as wanted.
func size(want string) error {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	for deadline := time.After(10 * time.Second); ; {
		var ws struct{ rows, cols, x, y uint16 }
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&ws)))
		if errno != 0 {
			return errno
		}
		got := fmt.Sprintf("%dx%d", ws.cols, ws.rows)
		fmt.Println(got)
		if got == want {
			return nil
		}
		select {
		case <-changed:
		case <-deadline:
			return errors.New("the size did not change")
		}
	}
}

// commands prints the command lines of all processes.
func commands() error {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, name := range files {
		if data, err := os.ReadFile(name); err == nil { // else it ended meanwhile
			fmt.Println(strings.ReplaceAll(string(data), "\x00", " "))
		}
	}
	return nil
}
