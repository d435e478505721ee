package server

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How far the heap may grow over what is live until it is collected, in percent. The control plane's live heap is caches, and
// scanning them takes about as long as a cold start. While starting, garbage is plentiful; later a burst of cold starts makes it, and
// collecting it then would take CPU from them. What a burst leaves is given back when it is over.
const (
	startingGCPercent = 300
	steadyGCPercent   = 200
)

// When memory is given back to the machine: looked at every reclaimStep, if more than reclaimAbove has been taken since it was given
// back last, and less than quietBytes was allocated in the step, which an idle control plane stays well below.
const (
	reclaimStep  = 10 * time.Second
	reclaimAbove = 64 << 20
	quietBytes   = 64 << 20
)

// tuneStart makes the collector rare, and returns a function that makes it as frequent as it should be from then on and gives memory
// back. A user's own GOGC wins.
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

// reclaim gives memory back to the machine whenever the process is idle, until ctx ends.
func reclaim(ctx context.Context) error {
	ticker := time.NewTicker(reclaimStep)
	defer ticker.Stop()
	last := readUsage()
	floor := last.mapped
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := readUsage()
		if due(last, now, floor) {
			debug.FreeOSMemory()
			now = readUsage()
			floor = now.mapped
		}
		floor = min(floor, now.mapped)
		last = now
	}
}

// due tells whether memory should be given back now.
func due(last, now usage, floor uint64) bool {
	return now.allocated-last.allocated < quietBytes && now.mapped > floor+reclaimAbove
}

// usage is what the Go runtime says of its memory, in bytes.
type usage struct {
	// mapped is what it holds of the machine's memory.
	mapped uint64
	// allocated is the sum of all allocations since the start.
	allocated uint64
}

func readUsage() usage {
	samples := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/gc/heap/allocs:bytes"},
	}
	metrics.Read(samples)
	return usage{mapped: samples[0].Value.Uint64() - samples[1].Value.Uint64(), allocated: samples[2].Value.Uint64()}
}
