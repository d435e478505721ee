package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/weft-dev/weft/mesh/proxy"
)

// config is what the flags say.
type config struct {
	control, node, adminSocket, metricsAddress string
	dnsAddress, dnsDomain                      string
	gatewayAddress                             string
	localPort                                  uint
	captureTCP                                 string
	drainTimeout                               time.Duration
	logLevel                                   slog.Level
}

// parse reads the flags. Its error is the user's.
func parse(args []string, out io.Writer) (config, error) {
	var c config
	flags := flag.NewFlagSet("weft-proxy", flag.ContinueOnError)
	flags.SetOutput(out)
	hostname, _ := os.Hostname()
	flags.StringVar(&c.control, "control", "", "control plane's address in gRPC's form, for example unix:///var/lib/weft/run/control.sock")
	flags.StringVar(&c.node, "node", hostname, "name of this proxy to the control plane")
	flags.StringVar(&c.adminSocket, "admin-socket", "", "path of the unix socket for the supervisor; empty for none")
	flags.StringVar(&c.metricsAddress, "metrics-address", "127.0.0.1:9090", "address of /metrics; empty for none")
	flags.StringVar(&c.dnsAddress, "dns-address", "", "addresses of the DNS server, separated by commas; empty for none")
	flags.StringVar(&c.dnsDomain, "dns-domain", "localhost", "domain of public hosts, answered with the gateway address")
	flags.StringVar(&c.gatewayAddress, "gateway-address", "", "address at which pods reach this proxy")
	flags.UintVar(&c.localPort, "local-port", 80, "port of the cluster-local listener at the gateway address")
	flags.StringVar(&c.captureTCP, "capture-tcp", "", "address that TCP connections to cluster IPs are redirected to; empty for none")
	flags.DurationVar(&c.drainTimeout, "drain-timeout", proxy.DefaultDrainTimeout, "how long requests may go on after SIGTERM")
	flags.TextVar(&c.logLevel, "log-level", slog.LevelInfo, "debug, info, warn or error")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	return c, c.validate()
}

func (c config) validate() error {
	if c.control == "" {
		return errors.New("--control is required")
	}
	if c.node == "" {
		return errors.New("--node is required where the machine has no host name")
	}
	if c.gatewayAddress == "" && (c.captureTCP != "" || c.dnsAddress != "") {
		return errors.New("--capture-tcp and --dns-address need --gateway-address")
	}
	if c.gatewayAddress != "" {
		if _, err := netip.ParseAddr(c.gatewayAddress); err != nil {
			return fmt.Errorf("reading --gateway-address: %w", err)
		}
	}
	if c.localPort > 65535 {
		return fmt.Errorf("reading --local-port: %d is out of range", c.localPort)
	}
	if _, err := c.dnsAddresses(); err != nil {
		return err
	}
	for flag, address := range map[string]string{"--metrics-address": c.metricsAddress, "--capture-tcp": c.captureTCP} {
		if address == "" {
			continue
		}
		if _, err := netip.ParseAddrPort(address); err != nil {
			return fmt.Errorf("reading %s: %w", flag, err)
		}
	}
	return nil
}

// dnsAddresses are where the DNS server listens.
func (c config) dnsAddresses() ([]netip.AddrPort, error) {
	if c.dnsAddress == "" {
		return nil, nil
	}
	var addresses []netip.AddrPort
	for text := range strings.SplitSeq(c.dnsAddress, ",") {
		address, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, fmt.Errorf("reading --dns-address: %w", err)
		}
		addresses = append(addresses, address)
	}
	return addresses, nil
}
