package main

import (
	"testing"
	"time"
)

const report = `Running 6s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.80ms  650.00us  12.00ms   80.00%
  Latency Distribution
     50%    1.70ms
     75%    2.00ms
     90%    2.60ms
     99%    4.20ms
  200000 requests in 6.00s, 40.00MB read
Requests/sec:  33333.30
Transfer/sec:      6.67MB
`

func TestParseWrk(t *testing.T) {
	t.Parallel()
	got, err := parseWrk(report, 5*time.Second)
	if want := (load{perSecond: 33333.3, cpuMicros: 25, p50: 1700 * time.Microsecond, p99: 4200 * time.Microsecond}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "unable to connect", report + "  Non-2xx or 3xx responses: 3\n", report + "  Socket errors: connect 0, read 1, write 0, timeout 0\n"} {
		if _, err := parseWrk(bad, time.Second); err == nil {
			t.Errorf("accepted: %q", bad)
		}
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	if got := median([]load{{cpuMicros: 3}, {cpuMicros: 1}, {cpuMicros: 2}}); got.cpuMicros != 2 {
		t.Errorf("got %v, want 2", got.cpuMicros)
	}
}
