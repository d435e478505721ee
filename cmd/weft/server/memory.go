package server

import (
	"os"
	"runtime/debug"
)

// gcPercent trades processor time for memory: most of the heap is caches that live for ever, and a collection of them every time
// the heap has grown by half is cheap on the few objects that change.
const gcPercent = 50

// limitMemory sets the garbage collector unless the user has.
func limitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
