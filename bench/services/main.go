// Command services measures how the platform bears many services that run nothing: how long each takes to become ready while there
// are ever more of them, what each costs in memory, and how long a service with an instance takes to become ready. It starts a
// platform of its own, stops it again, and fails when a bar is missed.
//
//	go run ./bench/services -results bench/results
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/weft-dev/weft/bench/record"
	"github.com/weft-dev/weft/test/platform"
)

// Bars in the units that record prints, for an otherwise idle machine with 2 cores.
const (
	// barGrowth bounds the time to Ready of the last fifth of the services, as a multiple of that of the first fifth.
	barGrowth = 1.5
	// barServiceKB bounds what a service at zero holds of the control plane's heap beyond the API server's own store and caches.
	barServiceKB = 100
	// barReadyMillis bounds the time from create to Ready=True of a service whose image is present and whose instance must start.
	barReadyMillis = 1000
)

func main() {
	results := flag.String("results", "", "directory for the recorded result; empty prints only")
	count := flag.Int("services", 500, "services at zero that are created, one after the other")
	started := flag.Int("started", 20, "services with an instance that are created before, one after the other")
	flag.Parse()
	if err := run(*started, *count, *results); err != nil {
		fmt.Fprintln(os.Stderr, "services:", err)
		os.Exit(1)
	}
}

func run(started, count int, results string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Fprintln(os.Stderr, "starting a platform")
	p, err := platform.Start("services", 4)
	if err != nil {
		return err
	}
	defer func() {
		if stopErr := p.Destroy(); err == nil {
			err = stopErr
		}
	}()
	if out, err := p.Weft("image", "build", image, "./samples/hello"); err != nil {
		return fmt.Errorf("building samples/hello: %w\n%s", err, out)
	}
	result := record.New(ctx, "services")
	if err := ready(ctx, p, started, result); err != nil {
		return err
	}
	if err := atZero(ctx, p, count, result); err != nil {
		return err
	}
	return result.Conclude(results)
}
