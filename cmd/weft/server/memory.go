package server

import (
	"os"
	"runtime/debug"
)

// How far the heap may grow over what is live until it is collected, in percent. The control plane's live heap is caches of about
// 110 MB, and scanning them takes about as long as a cold start. While starting, garbage is plentiful and nobody counts memory.
const (
	startingGCPercent = 300
	steadyGCPercent   = 75
)

// tuneStart makes the collector rare, and returns a function that makes it frugal and gives memory back to the machine.
// A user's own GOGC wins.
func tuneStart() (steady func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	debug.SetGCPercent(startingGCPercent)
	return func() {
		debug.SetGCPercent(steadyGCPercent)
		debug.FreeOSMemory()
	}
}
