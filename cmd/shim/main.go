// Command weft-shim is the parent of one container: it keeps the container's log and exit code when weft is gone. Weft starts it
// and tells it what to do on a socket; it has no flags and nothing for a user to call.
package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/weft-dev/weft/node/container/monitor"
)

func main() {
	// There is one of these for each container and it does next to nothing: memory counts, processor time does not.
	debug.SetGCPercent(10)
	if err := monitor.Run(monitor.Socket); err != nil {
		fmt.Fprintln(os.Stderr, "weft-shim:", err)
		os.Exit(1)
	}
}
