package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// listen returns a listener on loopback and its port.
func listen(t *testing.T) (net.Listener, int) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, l.Addr().(*net.TCPAddr).Port
}

// closedPort is a port on which nobody listens.
func closedPort(t *testing.T) int {
	t.Helper()
	l, port := listen(t)
	_ = l.Close()
	return port
}

func target(ports ...v1.ContainerPort) Target {
	return Target{Host: "127.0.0.1", Container: &v1.Container{Name: "c", Ports: ports}}
}

func TestCheckHTTP(t *testing.T) {
	t.Parallel()
	var seen http.Request
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(_ http.ResponseWriter, r *http.Request) { seen = *r })
	mux.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://example.com/", http.StatusFound)
	})
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	srv := httptest.NewServer(mux)
	defer srv.Close()
	port := srv.Listener.Addr().(*net.TCPAddr).Port
	dead := closedPort(t)
	for _, tt := range []struct {
		name   string
		action v1.HTTPGetAction
		want   Outcome
		text   string
	}{
		{name: "ok", action: v1.HTTPGetAction{Path: "/ok?a=b", Port: intstr.FromString("web"), HTTPHeaders: []v1.HTTPHeader{{Name: "Host", Value: "h"}, {Name: "X", Value: "y"}}}, want: Success},
		{name: "error", action: v1.HTTPGetAction{Path: "/bad", Port: intstr.FromInt(port)}, want: Failure, text: "HTTP probe failed with statuscode: 503"},
		{name: "redirect to another host", action: v1.HTTPGetAction{Path: "/away", Port: intstr.FromInt(port)}, want: Warning, text: "Probe terminated redirects, Response body: "},
		{name: "timeout", action: v1.HTTPGetAction{Path: "/slow", Port: intstr.FromInt(port)}, want: Failure, text: "context deadline exceeded"},
		{name: "nobody", action: v1.HTTPGetAction{Path: "/", Port: intstr.FromInt(dead)}, want: Failure, text: fmt.Sprintf("Get \"http://127.0.0.1:%d/\": dial tcp 127.0.0.1:%d: connect: connection refused", dead, dead)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Check(t.Context(), &v1.Probe{ProbeHandler: v1.ProbeHandler{HTTPGet: &tt.action}, TimeoutSeconds: 1},
				target(v1.ContainerPort{Name: "web", ContainerPort: int32(port)}))
			if err != nil {
				t.Fatal(err)
			}
			if got.Outcome != tt.want || !strings.Contains(got.Message, tt.text) {
				t.Errorf("%s %q, want %s with %q", got.Outcome, got.Message, tt.want, tt.text)
			}
		})
	}
	if seen.Host != "h" || seen.Header.Get("X") != "y" || seen.URL.RawQuery != "a=b" || !strings.HasPrefix(seen.UserAgent(), "kube-probe/") {
		t.Errorf("the server saw host %q, header %q, query %q, agent %q", seen.Host, seen.Header.Get("X"), seen.URL.RawQuery, seen.UserAgent())
	}
}

func TestCheckTCP(t *testing.T) {
	t.Parallel()
	_, port := listen(t)
	dead := closedPort(t)
	for _, tt := range []struct {
		name    string
		port    intstr.IntOrString
		want    Outcome
		text    string
		wantErr string
	}{
		{name: "open", port: intstr.FromInt(port), want: Success},
		{name: "closed", port: intstr.FromInt(dead), want: Failure, text: fmt.Sprintf("dial tcp 127.0.0.1:%d: connect: connection refused", dead)},
		{name: "no such name", port: intstr.FromString("nope"), wantErr: "port nope not found"},
		{name: "out of range", port: intstr.FromInt(70000), wantErr: "invalid port number: 70000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Check(t.Context(), &v1.Probe{ProbeHandler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: tt.port}}}, target())
			if tt.wantErr != "" {
				if err == nil || err.Error() != tt.wantErr {
					t.Errorf("error %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil || got.Outcome != tt.want || got.Message != tt.text {
				t.Errorf("%v, %v, want %s %q", got, err, tt.want, tt.text)
			}
		})
	}
}

func TestCheckGRPC(t *testing.T) {
	t.Parallel()
	l, port := listen(t)
	state := health.NewServer()
	state.SetServingStatus("up", healthpb.HealthCheckResponse_SERVING)
	state.SetServingStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
	srv := grpc.NewServer()
	healthpb.RegisterHealthServer(srv, state)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	bare, barePort := listen(t)
	other := grpc.NewServer()
	go func() { _ = other.Serve(bare) }()
	t.Cleanup(other.Stop)
	for _, tt := range []struct {
		name, service string
		port          int
		want          Outcome
		text          string
	}{
		{name: "serving", service: "up", port: port, want: Success, text: "service healthy"},
		{name: "not serving", service: "down", port: port, want: Failure, text: `service unhealthy (responded with "NOT_SERVING")`},
		{name: "unknown", service: "what", port: port, want: Failure, text: "error: health rpc probe failed: "},
		{name: "no health service", port: barePort, want: Failure, text: "error: this server does not implement the grpc health protocol"},
		{name: "nobody", port: closedPort(t), want: Failure, text: "error: failed to connect service at"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Check(t.Context(), &v1.Probe{ProbeHandler: v1.ProbeHandler{
				GRPC: &v1.GRPCAction{Port: int32(tt.port), Service: &tt.service},
			}}, target())
			if err != nil || got.Outcome != tt.want || !strings.Contains(got.Message, tt.text) {
				t.Errorf("%v, %v, want %s with %q", got, err, tt.want, tt.text)
			}
		})
	}
}

func TestCheckExec(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		exec    Exec
		want    Result
		wantErr bool
	}{
		{name: "success", exec: func(context.Context, []string) (int, string, error) { return 0, "fine", nil }, want: Result{Success, "fine"}},
		{name: "failure", exec: func(context.Context, []string) (int, string, error) { return 2, "no", nil }, want: Result{Failure, "no"}},
		{name: "cannot run", exec: func(context.Context, []string) (int, string, error) { return 0, "", errors.New("x") }, wantErr: true},
		{
			name: "timeout", exec: func(ctx context.Context, _ []string) (int, string, error) { <-ctx.Done(); return 0, "", ctx.Err() },
			want: Result{Failure, `command timed out: ["cmd"] timed out after 1s`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				got, err := Check(t.Context(), &v1.Probe{ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"cmd"}}}},
					Target{Container: &v1.Container{}, Exec: tt.exec})
				if (err != nil) != tt.wantErr {
					t.Fatalf("error %v", err)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("result (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// script runs a probe against a container whose answers depend on its age, and returns when what was reported.
func script(t *testing.T, r Runner, until time.Duration, answer func(age time.Duration) bool) (reports []string, checks int) {
	t.Helper()
	began := time.Now()
	r.StartedAt = began
	r.Check = func(context.Context) (Result, error) {
		checks++
		if answer(time.Since(began)) {
			return Result{Outcome: Success}, nil
		}
		return Result{Outcome: Failure, Message: "no"}, nil
	}
	r.Report = func(ok bool, _ Result) { reports = append(reports, fmt.Sprintf("%v at %v", ok, time.Since(began))) }
	if r.Failed == nil {
		r.Failed = func(Result, error) {}
	}
	ctx, cancel := context.WithTimeout(t.Context(), until)
	defer cancel()
	r.Run(ctx)
	return reports, checks
}

func TestRunner(t *testing.T) {
	t.Parallel()
	http := v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{}}
	after := func(d time.Duration) func(time.Duration) bool {
		return func(age time.Duration) bool { return age >= d }
	}
	for _, tt := range []struct {
		name   string
		kind   Kind
		probe  v1.Probe
		ready  bool
		until  time.Duration
		answer func(time.Duration) bool
		want   []string
	}{
		{name: "a new container is found in steps", kind: Readiness, probe: v1.Probe{ProbeHandler: http, PeriodSeconds: 1}, until: time.Minute, answer: after(37 * time.Millisecond), want: []string{"true at 38ms"}},
		{name: "later steps are longer", kind: Readiness, probe: v1.Probe{ProbeHandler: http, PeriodSeconds: 1}, until: time.Minute, answer: after(301 * time.Millisecond), want: []string{"true at 302ms"}},
		{name: "the declared period comes after the first time", kind: Readiness, probe: v1.Probe{ProbeHandler: http, PeriodSeconds: 1}, until: time.Minute, answer: after(20500 * time.Millisecond), want: []string{"true at 21s"}},
		{name: "steps of a long period double", kind: Readiness, probe: v1.Probe{ProbeHandler: http, PeriodSeconds: 10}, until: time.Minute, answer: after(300 * time.Millisecond), want: []string{"true at 512ms"}},
		{name: "initial delay", kind: Readiness, probe: v1.Probe{ProbeHandler: http, PeriodSeconds: 1, InitialDelaySeconds: 5}, until: time.Minute, answer: after(0), want: []string{"true at 5s"}},
		{name: "failure threshold", kind: Readiness, probe: v1.Probe{ProbeHandler: http, PeriodSeconds: 2, FailureThreshold: 3}, until: 11 * time.Second, answer: func(age time.Duration) bool { return age < 3*time.Second }, want: []string{"true at 0s", "false at 8s"}},
		{name: "ready before stays ready", kind: Readiness, probe: v1.Probe{ProbeHandler: http, PeriodSeconds: 1}, ready: true, until: 5 * time.Second, answer: after(0), want: nil},
		{name: "liveness gives one verdict", kind: Liveness, probe: v1.Probe{ProbeHandler: http, PeriodSeconds: 5, FailureThreshold: 2}, until: time.Minute, answer: func(time.Duration) bool { return false }, want: []string{"false at 5s"}},
		{name: "startup passes once", kind: Startup, probe: v1.Probe{ProbeHandler: http, PeriodSeconds: 1, FailureThreshold: 30}, until: time.Minute, answer: after(100 * time.Millisecond), want: []string{"true at 102ms"}},
		{name: "steps do not count as failures of startup", kind: Startup, probe: v1.Probe{ProbeHandler: http, PeriodSeconds: 1, FailureThreshold: 3}, until: time.Minute, answer: func(time.Duration) bool { return false }, want: []string{"false at 2s"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				got, _ := script(t, Runner{Kind: tt.kind, Probe: &tt.probe, Ready: tt.ready}, tt.until, tt.answer)
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("reports (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestRunnerIsQuietAboutTheFirstSteps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var failures atomic.Int32
		_, checks := script(t, Runner{
			Kind: Readiness, Probe: &v1.Probe{ProbeHandler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{}}, PeriodSeconds: 1},
			Failed: func(Result, error) { failures.Add(1) },
		}, 3500*time.Millisecond, func(time.Duration) bool { return false })
		if failures.Load() != 3 || checks < 300 {
			t.Errorf("%d failures told of %d checks, want those at 1, 2 and 3 seconds", failures.Load(), checks)
		}
	})
}
