package container

import (
	"errors"
	"fmt"
)

// ErrNotFound is a container that this instance does not have.
var ErrNotFound = errors.New("container not found")

// StartError is a process that the runtime refused to start. Its text is what users see as the message of the
// ContainerCannotRun or StartError reason.
type StartError struct {
	// ExitCode is 127 for a missing executable, 126 for one that may not be run, else 128, as kubelet reports them.
	ExitCode int
	Message  string
}

// Error returns the runtime's own message.
func (e *StartError) Error() string { return fmt.Sprintf("starting container process: %s", e.Message) }
