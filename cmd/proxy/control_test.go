package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	meshconfig "github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
	"github.com/weft-dev/weft/mesh/telemetry"
)

// scaler is an autoscaler that starts an instance when it is asked for one.
type scaler struct {
	telemetry.UnimplementedLoadServiceServer
	woken chan string
}

func (s *scaler) Report(stream grpc.BidiStreamingServer[telemetry.LoadReport, telemetry.LoadReportResponse]) error {
	for {
		report, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, r := range report.GetRevisions() {
			if r.GetWake() {
				s.woken <- r.GetNamespace() + "/" + r.GetRevision()
			}
		}
	}
}

// controlPlane serves configuration and takes load reports at a socket until stop is called.
func controlPlane(t *testing.T, socket string, resources ...meshconfig.Resource) (d *distribute.Server, s *scaler, stop func()) {
	t.Helper()
	d, s = distribute.New(distribute.Options{}), &scaler{woken: make(chan string, 100)}
	if err := d.Apply(resources, nil); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	d.Register(g)
	telemetry.RegisterLoadServiceServer(g, s)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = g.Serve(l)
	}()
	stop = func() {
		g.Stop()
		<-ended
	}
	t.Cleanup(stop)
	return d, s, stop
}

// TestWithControlPlane walks a proxy through a cold start, the death and return of its control plane, and its own end.
func TestWithControlPlane(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket, admin := filepath.Join(dir, "c.sock"), filepath.Join(dir, "a.sock")
	backend := meshconfig.RevisionBackend("default", "hello-00001")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gateway := free.Addr().String()
	port := uint32(free.Addr().(*net.TCPAddr).Port)
	_ = free.Close()
	resources := []meshconfig.Resource{
		&meshconfig.Listener{Name: "gateway-http", Address: "127.0.0.1", Port: port},
		&meshconfig.Backend{
			Name: backend, Activation: &meshconfig.Activation{}, Timeouts: &meshconfig.Timeouts{RequestMs: 20_000},
			Revision: &meshconfig.Revision{Namespace: "default", Service: "hello", Configuration: "hello", Name: "hello-00001"},
		},
		&meshconfig.Route{Name: meshconfig.KnativeRoute("default", "hello"), VirtualHosts: []*meshconfig.VirtualHost{{
			Hosts: []string{"hello.default.localhost"},
			Rules: []*meshconfig.Rule{{Splits: []*meshconfig.Split{{Backend: backend, Weight: 100}}}},
		}}},
	}
	_, first, stopFirst := controlPlane(t, socket, resources...)

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, config{control: "unix://" + socket, node: "n", adminSocket: admin, drainTimeout: 10 * time.Second}, io.Discard)
	}()
	waitReady(t, admin)

	answers := make(chan string, 1)
	send := func() {
		r, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, "http://"+gateway+"/", http.NoBody)
		if err != nil {
			answers <- err.Error()
			return
		}
		r.Host = "hello.default.localhost"
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			answers <- err.Error()
			return
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			answers <- err.Error()
			return
		}
		answers <- string(body)
	}
	expect := func(step, want string) {
		t.Helper()
		if got := <-answers; got != want {
			t.Fatalf("%s: got %q, want %q", step, got, want)
		}
	}

	// A request at zero wakes the revision. The control plane dies with the request parked, comes back, is asked again, and answers.
	go send()
	if got := <-first.woken; got != "default/hello-00001" {
		t.Fatalf("woken: %q", got)
	}
	stopFirst()
	control, second, stop := controlPlane(t, socket, resources...)
	<-second.woken
	release, arrived := make(chan struct{}), make(chan struct{}, 10)
	address := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		_, _ = io.WriteString(w, "hello")
	})
	if err := control.Set(&meshconfig.Endpoints{Name: backend, Endpoints: []*meshconfig.Endpoint{{
		Address: "127.0.0.1", Port: uint32(address.Port), Pod: "default/p",
	}}}); err != nil {
		t.Fatal(err)
	}
	<-arrived
	release <- struct{}{}
	expect("cold start", "hello")

	// Without a control plane the proxy goes on.
	stop()
	go send()
	<-arrived
	release <- struct{}{}
	expect("without control plane", "hello")

	// Told to stop, it finishes what it has.
	go send()
	<-arrived
	cancel()
	for refused := false; !refused; {
		conn, err := net.Dial("tcp", gateway)
		if refused = err != nil; !refused {
			_ = conn.Close()
		}
	}
	close(release)
	expect("request in flight at the end", "hello")
	if err := <-ended; err != nil {
		t.Errorf("stopping: %v", err)
	}
}

// serve runs an instance and returns its address.
func serve(t *testing.T, handler http.HandlerFunc) *net.TCPAddr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: handler}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("listening at %v", l.Addr())
	}
	return address
}

// waitReady waits until the proxy says that it is ready.
func waitReady(t *testing.T, admin string) {
	t.Helper()
	client := adminClient(admin)
	defer client.CloseIdleConnections()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(10 * time.Second); status(t, client, "/ready") != http.StatusOK; {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("not ready within 10 s")
		}
	}
}

// adminClient talks to an admin socket.
func adminClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
}

// status asks an admin socket, 0 being no answer.
func status(t *testing.T, client *http.Client, path string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://proxy"+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(r)
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}
