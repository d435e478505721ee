// Command coldstart measures what a request to a revision at zero costs: one after the other, broken down into the stages of
// activation, and many at once. It starts a platform of its own, stops it again, and fails when a bar is missed.
//
//	go run ./bench/coldstart -results bench/results
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

// Bars in the units that record prints: the platform's promise for samples/hello, image present, on an idle machine with 2 cores.
const (
	barP50Millis      = 150
	barP95Millis      = 300
	barBurstP95Millis = 2000
	barControlMiB     = 450
	barProxyMiB       = 40
)

func main() {
	results := flag.String("results", "", "directory for the recorded result; empty prints only")
	runs := flag.Int("runs", 20, "cold starts one after the other")
	burst := flag.Int("burst", 20, "services that are cold-started at once")
	flag.Parse()
	if err := run(*runs, *burst, *results); err != nil {
		fmt.Fprintln(os.Stderr, "coldstart:", err)
		os.Exit(1)
	}
}

func run(runs, burst int, results string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Fprintln(os.Stderr, "starting a platform")
	p, err := platform.Start("bench", 3)
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
	result := record.New(ctx, "coldstart")
	if err := memory(p, result); err != nil {
		return err
	}
	if err := sequence(ctx, p, runs, result); err != nil {
		return err
	}
	if err := atOnce(ctx, p, burst, result); err != nil {
		return err
	}
	return result.Conclude(results)
}
