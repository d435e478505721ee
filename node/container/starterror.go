package container

import (
	"fmt"
	"strings"
)

// Exit codes of a process that never ran, as shells and kubelet give them.
const (
	codeNotFound   = 127
	codePermission = 126
	codeOther      = 128
)

// startError turns the OCI runtime's message into the words and the code that kubelet users know. runc's messages end in these words
// already; crun has its own.
func startError(args []string, message string) *StartError {
	message = strings.TrimSpace(message)
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	has := func(part string) bool { return strings.Contains(message, part) }
	switch {
	case has("not found in $PATH") && has("No such file") && strings.Contains(command, "/"), // crun, whatever the command
		has("no such file or directory") && has("exec:"):
		return &StartError{ExitCode: codeNotFound, Message: fmt.Sprintf("exec: %q: stat %s: no such file or directory", command, command)}
	case has("not found in $PATH"):
		return &StartError{ExitCode: codeNotFound, Message: fmt.Sprintf("exec: %q: executable file not found in $PATH", command)}
	case has("open executable"), has("exec:") && has("ermission denied"), has("exec:") && has("is a directory"):
		return &StartError{ExitCode: codePermission, Message: fmt.Sprintf("exec: %q: permission denied", command)}
	}
	return &StartError{ExitCode: codeOther, Message: message}
}
