// Command weft is the platform on one machine and the tool to use it: `weft up` runs everything, the other commands ask and change
// what runs. It reads flags and leaves the work to cmd/weft/server and the packages below it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the build with -ldflags "-X main.version=...".
var version = "dev"

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, terminalStderr()))
}

// run executes one command and returns the exit code. Every error becomes one line: what a user can cause needs no stack of wraps.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal kills at once, for those who cannot wait for an orderly stop.
	context.AfterFunc(ctx, stop)
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		if _, silent := errors.AsType[silentError](err); !silent {
			_, _ = fmt.Fprintln(stderr, "Error:", err)
		}
		return 1
	}
	return 0
}

// silentError is an error that the user has been told already.
type silentError struct{ error }

func (e silentError) Unwrap() error { return e.error }

var _ error = silentError{}

// noArgs refuses arguments and says where to look, which cobra does not.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments, got %q; see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())
	}
	return nil
}
