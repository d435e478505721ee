// Command server is the application that the end-to-end tests deploy. Every test that needs an application to do something unusual
// asks it by path, so that one image serves all tests.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

func run() error {
	if done, code := arguments(os.Args[1:]); done {
		os.Exit(code)
	}
	if code, err := strconv.Atoi(os.Getenv("EXIT_AT_START")); err == nil {
		fmt.Fprintln(os.Stderr, os.Getenv("LAST_WORDS"))
		os.Exit(code)
	}
	if delay, err := time.ParseDuration(os.Getenv("START_DELAY")); err == nil {
		<-time.After(delay)
	}
	port := os.Getenv("PORT")
	if os.Getenv("LISTEN_PORT") != "" {
		port = os.Getenv("LISTEN_PORT")
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Addr: ":" + port, Handler: handler(), Protocols: protocols, ReadHeaderTimeout: time.Minute}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go func() {
		<-ctx.Done()
		fmt.Println("terminating")
		sockets.closeAll()
		_ = server.Close()
	}()
	if also := os.Getenv("ALSO_LISTEN"); also != "" {
		go func() {
			_ = (&http.Server{Addr: ":" + also, Handler: server.Handler, ReadHeaderTimeout: time.Minute}).ListenAndServe()
		}()
	}
	fmt.Println("listening on", port)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func handler() http.Handler {
	var inFlight, peak, ready atomic.Int64
	ready.Store(1)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s\n", os.Getenv("K_REVISION"), os.Getenv("VERSION"))
	})
	mux.HandleFunc("/sleep", func(w http.ResponseWriter, r *http.Request) {
		n := inFlight.Add(1)
		defer inFlight.Add(-1)
		for old := peak.Load(); n > old && !peak.CompareAndSwap(old, n); old = peak.Load() {
		}
		d, err := time.ParseDuration(r.URL.Query().Get("for"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(d):
		case <-r.Context().Done():
		}
		fmt.Fprintln(w, os.Getenv("K_REVISION"))
	})
	mux.HandleFunc("/peak", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, peak.Load()) })
	mux.HandleFunc("/hostname", func(w http.ResponseWriter, _ *http.Request) { name, _ := os.Hostname(); fmt.Fprintln(w, name) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if ready.Load() == 0 || os.Getenv("NEVER_READY") != "" {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.URL.Query().Get("code"))
		fmt.Println("exiting on request")
		os.Exit(code)
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Length")
		n, _ := io.Copy(flusher{w}, r.Body)
		w.Header().Set("X-Length", strconv.FormatInt(n, 10))
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"host": r.Host, "proto": r.Proto, "headers": r.Header, "remote": r.RemoteAddr, "revision": os.Getenv("K_REVISION"),
		})
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(os.Environ()) })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, r.URL.Query().Get("path")) })
	mux.HandleFunc("/fetch", fetch)
	mux.HandleFunc("/lookup", func(w http.ResponseWriter, r *http.Request) {
		hosts, err := net.DefaultResolver.LookupHost(r.Context(), r.URL.Query().Get("host"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_ = json.NewEncoder(w).Encode(hosts)
	})
	mux.HandleFunc("/memory", memory)
	mux.HandleFunc("/hold", hold())
	mux.HandleFunc("/burn", burn)
	mux.HandleFunc("/websocket", echoWebSocket)
	handleContract(mux)
	calls := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(calls, health.NewServer())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			calls.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// flusher sends each piece on as it comes, so that a test sees whether both directions stream.
type flusher struct{ w http.ResponseWriter }

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	_ = http.NewResponseController(f.w).Flush()
	return n, err
}

// fetch calls another service from inside the pod.
func fetch(w http.ResponseWriter, r *http.Request) {
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, r.URL.Query().Get("url"), http.NoBody)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	w.WriteHeader(response.StatusCode)
	_, _ = io.Copy(w, response.Body)
}

// memory holds as many MiB as asked for, each page written.
func memory(w http.ResponseWriter, r *http.Request) {
	mib, _ := strconv.Atoi(r.URL.Query().Get("mib"))
	held := make([][]byte, 0, mib)
	for range mib {
		held = append(held, bytes.Repeat([]byte{1}, 1<<20))
	}
	fmt.Fprintln(w, len(held))
}

// hold keeps as many MiB as asked for until the next request, or the end.
func hold() http.HandlerFunc {
	var mu sync.Mutex
	var held [][]byte
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		mib, _ := strconv.Atoi(r.URL.Query().Get("mib"))
		held = nil
		for range mib {
			held = append(held, bytes.Repeat([]byte{1}, 1<<20))
		}
		debug.FreeOSMemory()
		fmt.Fprintln(w, len(held))
	}
}

// burn keeps a processor busy for a time.
func burn(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.URL.Query().Get("for"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	rounds := 0
	for began := time.Now(); time.Since(began) < d && r.Context().Err() == nil; rounds++ {
	}
	fmt.Fprintln(w, rounds)
}

// sockets are the open WebSockets. The server closes them in order when it is told to end.
var sockets = &openSockets{conns: map[*websocket.Conn]bool{}}

type openSockets struct {
	mu    sync.Mutex // guards conns
	conns map[*websocket.Conn]bool
}

func (s *openSockets) add(conn *websocket.Conn) (remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[conn] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, conn)
	}
}

func (s *openSockets) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "goodbye")
	for conn := range s.conns {
		_ = conn.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(time.Second))
	}
}

func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	defer sockets.add(conn)()
	for {
		kind, message, err := conn.ReadMessage()
		if err != nil {
			return
		}
		if conn.WriteMessage(kind, message) != nil {
			return
		}
	}
}
