package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/weft-dev/weft/test/platform"
)

// heap is what the control plane holds after a garbage collection, in bytes by who allocated it, and what its processes have
// resident.
type heap struct {
	apiServer, controllers float64
	controlMiB, proxyMiB   float64
}

func (h heap) minus(o heap) heap {
	return heap{apiServer: h.apiServer - o.apiServer, controllers: h.controllers - o.controllers}
}

func (h heap) dividedBy(n int) heap {
	return heap{apiServer: h.apiServer / float64(n), controllers: h.controllers / float64(n)}
}

// apiServerFrames name the API server with its watch caches, and etcd. An allocation with one of them on its stack is theirs; all
// else in the process belongs to controllers, Kubernetes' and Weft's, and their caches.
var apiServerFrames = []string{"k8s.io/apiserver/", "k8s.io/apiextensions-apiserver/", "k8s.io/kubernetes/pkg/controlplane", "go.etcd.io/"}

// measureHeap reads the live heap of `weft up` from its heap profile, a sample of one in 512 KiB: exact to a few MiB.
func measureHeap(ctx context.Context, p *platform.Platform) (heap, error) {
	socket := filepath.Join(p.StateDir, "run", "debug.sock")
	debug := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://weft/debug/pprof/heap?gc=1&debug=1", http.NoBody)
	if err != nil {
		return heap{}, err
	}
	response, err := debug.Do(request)
	if err != nil {
		return heap{}, fmt.Errorf("reading the heap profile: %w", err)
	}
	defer response.Body.Close()
	h, err := parseHeap(response.Body)
	if err != nil {
		return heap{}, err
	}
	proxy, err := p.ProxyPID()
	if err != nil {
		return heap{}, err
	}
	if h.controlMiB, err = platform.RSS(p.PID()); err != nil {
		return heap{}, err
	}
	h.proxyMiB, err = platform.RSS(proxy)
	return h, err
}

// parseHeap reads runtime/pprof's legacy text form: per stack one line "objects: bytes [...] @ addresses", then one line with '#'
// per frame. A bucket's bytes are scaled up by the chance that an object of its size is sampled, as `go tool pprof` does.
func parseHeap(r io.Reader) (heap, error) {
	const rate = 512 << 10 // runtime.MemProfileRate
	var h heap
	var bytes float64
	server := false
	end := func() {
		if server {
			h.apiServer += bytes
		} else {
			h.controllers += bytes
		}
		bytes, server = 0, false
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if frame, ok := strings.CutPrefix(line, "#\t"); ok {
			for _, name := range apiServerFrames {
				server = server || strings.Contains(frame, name)
			}
			continue
		}
		var objects, live float64
		if n, _ := fmt.Sscanf(line, "%f: %f [", &objects, &live); n == 2 {
			end()
			if objects > 0 {
				bytes = live / (1 - math.Exp(-live/objects/rate))
			}
		}
	}
	end()
	if h.apiServer == 0 || h.controllers == 0 {
		return heap{}, errors.New("reading the heap profile: it names no allocation of the API server or none of a controller")
	}
	return h, lines.Err()
}
