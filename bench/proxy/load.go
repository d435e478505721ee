package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// load is what one proxy did under load.
type load struct {
	perSecond float64
	cpuMicros float64
	p50, p99  time.Duration
}

// median is the load with the median CPU per request.
func median(loads []load) load {
	sorted := slices.Clone(loads)
	slices.SortFunc(sorted, func(a, b load) int {
		switch {
		case a.cpuMicros < b.cpuMicros:
			return -1
		case a.cpuMicros > b.cpuMicros:
			return 1
		}
		return 0
	})
	return sorted[len(sorted)/2]
}

// load warms a proxy up and then loads it by wrk, from core 1.
func (s scenario) load(ctx context.Context, p *process, duration time.Duration) (load, error) {
	if _, err := s.wrk(ctx, p.address, time.Second); err != nil {
		return load{}, err
	}
	before, err := cpuTime(p.pid())
	if err != nil {
		return load{}, err
	}
	out, err := s.wrk(ctx, p.address, duration)
	if err != nil {
		return load{}, err
	}
	after, err := cpuTime(p.pid())
	if err != nil {
		return load{}, err
	}
	return parseWrk(out, after-before)
}

func (s scenario) wrk(ctx context.Context, address string, duration time.Duration) (string, error) {
	cmd := exec.CommandContext(ctx, "taskset", "-c", "1", "wrk", "--threads", "1", "--connections", strconv.Itoa(s.connections),
		"--duration", strconv.Itoa(int(duration.Seconds()))+"s", "--latency", "--header", "Host: "+host, "http://"+address+s.path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("running wrk: %w\n%s", err, out)
	}
	return string(out), nil
}

// parseWrk reads the report of wrk. A response that is not 2xx or 3xx, or an error of a socket, makes the run worthless.
func parseWrk(out string, cpu time.Duration) (load, error) {
	var l load
	requests := 0.0
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		switch {
		case strings.Contains(line, "Non-2xx") || strings.Contains(line, "Socket errors"):
			return l, fmt.Errorf("not every request was answered: %s", strings.TrimSpace(line))
		case len(fields) == 2 && fields[0] == "50%":
			l.p50, _ = time.ParseDuration(fields[1])
		case len(fields) == 2 && fields[0] == "99%":
			l.p99, _ = time.ParseDuration(fields[1])
		case strings.Contains(line, "requests in"):
			requests, _ = strconv.ParseFloat(fields[0], 64)
		case strings.HasPrefix(line, "Requests/sec:"):
			l.perSecond, _ = strconv.ParseFloat(fields[1], 64)
		}
	}
	if requests == 0 || l.p50 == 0 || l.p99 == 0 || l.perSecond == 0 {
		return l, fmt.Errorf("reading the report of wrk:\n%s", out)
	}
	l.cpuMicros = float64(cpu.Microseconds()) / requests
	return l, nil
}

// cpuTime is the user and system time of a process so far, proc_pid_stat(5), which counts in hundredths of a second.
func cpuTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	const utime, stime = 11, 12 // counted from the field after the name
	var ticks int64
	for _, i := range []int{utime, stime} {
		n, err := strconv.ParseInt(string(fields[i]), 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
