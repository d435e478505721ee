package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/proxy"
	"github.com/weft-dev/weft/mesh/telemetry"
)

// be is one of the proxies that are written in Go, until ctx ends.
func be(ctx context.Context, name, listen, origin string) error {
	switch name {
	case "weft":
		return beWeft(ctx, listen, origin)
	case "reverseproxy":
		return beReverseProxy(ctx, listen, origin)
	}
	return fmt.Errorf("unknown proxy %q", name)
}

func beReverseProxy(ctx context.Context, listen, origin string) error {
	transport := &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true}
	s := &http.Server{Addr: listen, ReadHeaderTimeout: 0, Handler: &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: origin})
			r.SetXForwarded()
		},
	}}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// beWeft is the data plane with the configuration of one Knative revision: its timeouts, its activation, its metrics.
func beWeft(ctx context.Context, listen, origin string) error {
	log := slog.New(slog.DiscardHandler)
	metrics, err := telemetry.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		return err
	}
	p := proxy.New(proxy.Options{Metrics: metrics, Reporter: telemetry.NewReporter("bench", nil, log), Log: log})
	address, port, err := split(listen)
	if err != nil {
		return err
	}
	podAddress, podPort, err := split(origin)
	if err != nil {
		return err
	}
	const backend = "revision/default/bench-00001"
	for _, resource := range []struct {
		typeURL string
		config.Resource
	}{
		{config.EndpointsType, &config.Endpoints{Name: backend, Endpoints: []*config.Endpoint{{Address: podAddress, Port: podPort}}}},
		{config.BackendType, &config.Backend{
			Name: backend, Activation: &config.Activation{}, Timeouts: &config.Timeouts{RequestMs: 300_000, ResponseStartMs: 300_000},
			Revision: &config.Revision{Namespace: "default", Name: "bench-00001", Service: "bench", Configuration: "bench"},
		}},
		{config.RouteType, &config.Route{Name: "knative/default/bench", VirtualHosts: []*config.VirtualHost{{
			Hosts: []string{host}, Visibility: config.Visibility_EXTERNAL,
			Rules: []*config.Rule{{Splits: []*config.Split{{Backend: backend, Weight: 100}}}},
		}}}},
		{config.ListenerType, &config.Listener{Name: "gateway", Address: address, Port: port, Protocol: config.Listener_HTTP, Visibility: config.Visibility_EXTERNAL}},
	} {
		if err := p.Apply(resource.typeURL, []config.Resource{resource.Resource}, nil); err != nil {
			return err
		}
	}
	return p.Run(ctx)
}

func split(address string) (host string, port uint32, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return host, uint32(n), err
}
