package server

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/weft-dev/weft/cmd/weft/teardown"
	"github.com/weft-dev/weft/embedded/supervise"
	"github.com/weft-dev/weft/mesh/capture"
)

// Ports of the proxy on the bridge's address, where only pods reach them.
const (
	dnsPort        = 53
	captureTCPPort = 15001
)

// drainTimeout is how long requests may go on when the platform is stopped. It leaves the proxy time to end before it is killed.
const drainTimeout = teardown.ProxyStopTimeout - 5*time.Second

// readyStep is the time between two questions to a starting proxy.
const readyStep = 10 * time.Millisecond

// startProxy starts or adopts the proxy, leads the traffic of pods to it, and returns when it serves.
func (p *platform) startProxy(ctx context.Context) error {
	if err := capture.Install(capture.InstallOptions{Instance: p.Settings.Instance, TCPPort: captureTCPPort}); err != nil {
		return err
	}
	p.parts.then("capture", func() error { return capture.Remove(p.Settings.Instance) })
	process, err := supervise.New(supervise.Options{
		Path: p.Binaries.Proxy, Args: p.proxyArgs(),
		PIDFile: teardown.ProxyPIDFile(p.Settings.Instance), LogPath: p.Settings.Path("logs", "weft-proxy.log"),
		StopTimeout: teardown.ProxyStopTimeout, Log: p.Log.With("component", "proxy"),
	})
	if err != nil {
		return err
	}
	p.parts.start("proxy", process.Run)
	return waitProxy(ctx, p.Settings.ProxyAdminSocket())
}

func (p *platform) proxyArgs() []string {
	gateway := p.Settings.Gateway()
	at := func(address netip.Addr, port int) string {
		return net.JoinHostPort(address.String(), strconv.Itoa(port))
	}
	dns := at(gateway, dnsPort)
	if p.Settings.HostDNS.IsValid() {
		dns += "," + p.Settings.HostDNS.String()
	}
	return []string{
		"--control=unix://" + p.Settings.ControlSocket(),
		"--node=" + p.Settings.Name,
		"--admin-socket=" + p.Settings.ProxyAdminSocket(),
		"--metrics-address=" + at(netip.AddrFrom4([4]byte{127, 0, 0, 1}), p.Settings.MetricsPort),
		"--gateway-address=" + gateway.String(),
		"--dns-address=" + dns,
		"--dns-domain=" + p.Settings.Domain,
		"--capture-tcp=" + at(gateway, captureTCPPort),
		"--drain-timeout=" + drainTimeout.String(),
	}
}

// waitProxy returns when the proxy has its configuration and listens.
func waitProxy(ctx context.Context, socket string) error {
	client := proxyClient(socket)
	defer client.CloseIdleConnections()
	ticker := time.NewTicker(readyStep)
	defer ticker.Stop()
	for {
		if proxyReady(ctx, client) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// proxyClient talks to the proxy's admin socket, whatever the host in a URL is.
func proxyClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}

func proxyReady(ctx context.Context, client *http.Client) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://proxy/ready", http.NoBody)
	if err != nil {
		return false
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode == http.StatusOK
}
