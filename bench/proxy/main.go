// Command proxy compares what a request through Weft's data plane costs with HAProxy, nginx and net/http's ReverseProxy, in the same run on
// the same machine: one proxy at a time, pinned to core 0 with one thread, the origin and the load generator on core 1. CPU per request
// is user and system time of the proxy's process divided by the requests answered; it is the figure to compare, since the generator
// shares its core with the origin. Weft runs with all filters of the path from the gateway to a container, metrics on.
//
// It needs haproxy, nginx, wrk and taskset: apt-get install haproxy nginx-light wrk util-linux.
//
//	go run ./bench/proxy -results bench/results
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/weft-dev/weft/bench/record"
)

// barCPU bounds the CPU per request as a multiple of HAProxy's in the same run.
const barCPU = 1.2

func main() {
	results := flag.String("results", "", "directory for the recorded result; empty prints only")
	duration := flag.Duration("duration", 6*time.Second, "how long each proxy is loaded per round")
	rounds := flag.Int("rounds", 3, "rounds; each loads every proxy once, and the median counts")
	serve := flag.String("serve", "", "for the benchmark itself: be the named proxy in place of running the benchmark")
	listen := flag.String("listen", "", "with -serve: the address to listen on")
	origin := flag.String("origin", "", "with -serve: the address to forward to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if *serve != "" {
		err = be(ctx, *serve, *listen, *origin)
	} else {
		err = run(ctx, *duration, *rounds, *results)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

// scenario is one kind of load.
type scenario struct {
	name, path  string
	connections int
	// bar says that the figure of this scenario has a limit.
	bar bool
}

var scenarios = []scenario{
	{name: "HTTP/1.1, 34 bytes", path: "/", connections: 64, bar: true},
	{name: "HTTP/1.1, 64 KB", path: "/64k", connections: 64},
}

func run(ctx context.Context, duration time.Duration, rounds int, results string) (err error) {
	if err := tools("haproxy", "nginx", "wrk", "taskset"); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "weft-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	origin, err := startOrigin(ctx, dir)
	if err != nil {
		return err
	}
	defer origin.stop()
	result := record.New(ctx, "proxy")
	for _, s := range scenarios {
		measured, err := s.measure(ctx, dir, origin.address, duration, rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		s.report(measured, result)
	}
	return result.Conclude(results)
}

// measure loads every proxy in turn, and that several times, so that what else the machine does hits all alike.
func (s scenario) measure(ctx context.Context, dir, origin string, duration time.Duration, rounds int) (map[string][]load, error) {
	measured := make(map[string][]load)
	for round := range rounds {
		for _, name := range peers {
			p, err := startPeer(ctx, name, dir, origin)
			if err != nil {
				return nil, err
			}
			l, err := s.load(ctx, p, duration)
			p.stop()
			if err != nil {
				return nil, fmt.Errorf("loading %s: %w", name, err)
			}
			measured[name] = append(measured[name], l)
			fmt.Fprintf(os.Stderr, "%s, round %d of %d: %s %.1f us of CPU per request, %.0f requests/s\n", s.name, round+1, rounds, name, l.cpuMicros, l.perSecond)
		}
	}
	return measured, nil
}

// report adds the medians.
func (s scenario) report(measured map[string][]load, result *record.Result) {
	for _, name := range peers {
		m := median(measured[name])
		result.Notes = append(result.Notes, fmt.Sprintf("%s, %d connections, %s: %.1f us of CPU per request, %.0f requests/s, p50 %s, p99 %s.",
			s.name, s.connections, name, m.cpuMicros, m.perSecond, m.p50, m.p99))
	}
	ratio := median(measured["weft"]).cpuMicros / median(measured["haproxy"]).cpuMicros
	if s.bar {
		result.Bars = append(result.Bars, record.Bar{Name: s.name + ": CPU per request over HAProxy's", Unit: "x", Measured: ratio, Limit: barCPU})
	} else {
		result.Notes = append(result.Notes, fmt.Sprintf("%s: CPU per request over HAProxy's %.2f x.", s.name, ratio))
	}
}
