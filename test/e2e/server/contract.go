package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// handleContract adds what tests of the runtime contract ask for.
func handleContract(mux *http.ServeMux) {
	mux.HandleFunc("/container", container)
	mux.HandleFunc("/stream", stream)
	mux.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "too much", http.StatusRequestEntityTooLarge)
	})
	mux.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "hinted\n")
	})
	mux.HandleFunc("/length", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "7")
		_, _ = io.WriteString(w, "length\n")
	})
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		_ = json.NewEncoder(w).Encode(map[string]any{"bytes": n, "error": err != nil, "trailer": r.Trailer})
	})
	var broken atomic.Bool
	mux.HandleFunc("/livez", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("break") != "" {
			broken.Store(true)
		} else if broken.Load() {
			http.Error(w, "broken", http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/query", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("probe") != "yes" {
			http.Error(w, "not the probe's query", http.StatusBadRequest)
		}
	})
}

// file is what is at a path.
type file struct {
	Mode  string
	Dir   bool
	Link  string
	Error string
}

// container describes what the process finds in its container. The queries stat, read and write name paths.
func container(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	files, contents, writes := map[string]file{}, map[string]string{}, map[string]string{}
	for _, path := range query["stat"] {
		files[path] = look(path)
	}
	for _, path := range query["read"] {
		data, err := os.ReadFile(path)
		contents[path] = string(data)
		if err != nil {
			contents[path] = "error: " + err.Error()
		}
	}
	for _, path := range query["write"] {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_ = f.Close()
			writes[path] = "allowed"
			continue
		}
		writes[path] = err.Error()
	}
	cwd, _ := os.Getwd()
	_, err := os.Stdin.Read(make([]byte, 1))
	_ = json.NewEncoder(w).Encode(map[string]any{
		"files": files, "contents": contents, "writes": writes, "cwd": cwd, "uid": os.Getuid(), "gid": os.Getgid(), "args": os.Args[1:],
		"stdinEOF": errors.Is(err, io.EOF),
	})
}

func look(path string) file {
	info, err := os.Stat(path)
	if err != nil {
		return file{Error: err.Error()}
	}
	link, _ := os.Readlink(path)
	return file{Mode: info.Mode().String(), Dir: info.IsDir(), Link: link}
}

// stream writes pieces with pauses: after the query first, and then after each of the queries gap.
func stream(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	control := http.NewResponseController(w)
	for i, gap := range slices.Concat(query["first"], query["gap"]) {
		d, err := time.ParseDuration(gap)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			return
		}
		if _, err := io.WriteString(w, "piece "+strconv.Itoa(i)+"\n"); err != nil || control.Flush() != nil {
			return
		}
	}
}

// arguments let a probe run the server as a check whether a file exists.
func arguments(args []string) (done bool, code int) {
	if len(args) != 2 || args[0] != "exists" {
		return false, 0
	}
	if _, err := os.Stat(args[1]); err != nil {
		return true, 1
	}
	return true, 0
}
