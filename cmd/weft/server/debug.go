package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"os"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/weft-dev/weft/autoscaler"
	"github.com/weft-dev/weft/cmd/weft/explain"
)

// look asks the autoscaler about a revision; nil until there is one.
type look func(revision types.NamespacedName) (autoscaler.Insight, bool)

// serveDebug serves Go's profiles of this process, and what the autoscaler measures, on a unix socket that only this user may open:
//
//	curl --unix-socket STATE/run/debug.sock 'http://weft/debug/pprof/profile?seconds=10' > cpu.pprof
//	curl --unix-socket STATE/run/debug.sock 'http://weft/debug/autoscaler?namespace=default&revision=hello-00001'
func serveDebug(ctx context.Context, path string, insight *atomic.Pointer[look]) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing old debug socket: %w", err)
	}
	listener, err := listenPrivate(ctx, path)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET "+explain.InsightPath, func(w http.ResponseWriter, r *http.Request) {
		answerInsight(w, r, insight.Load())
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving profiles on %q: %w", path, err)
	}
	return nil
}

func answerInsight(w http.ResponseWriter, r *http.Request, ask *look) {
	query := r.URL.Query()
	if ask == nil {
		http.Error(w, "the autoscaler is starting", http.StatusServiceUnavailable)
		return
	}
	found, ok := (*ask)(types.NamespacedName{Namespace: query.Get("namespace"), Name: query.Get("revision")})
	if !ok {
		http.Error(w, "the autoscaler does not know this revision", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// Who asks has gone when this fails.
	_ = json.NewEncoder(w).Encode(found)
}
