package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weft-dev/weft/cmd/weft/preflight"
	"github.com/weft-dev/weft/cmd/weft/server"
	"github.com/weft-dev/weft/cmd/weft/settings"
	"github.com/weft-dev/weft/cmd/weft/teardown"
	"github.com/weft-dev/weft/embedded/supervise"
)

// upFlags are the flags of `weft up`.
type upFlags struct {
	settings   settings.Settings
	podCIDR    string
	svcCIDR    string
	proxyAddr  string
	hostDNS    string
	detach     bool
	logLevel   slog.Level
	flagValues *pflag.FlagSet
}

func newUpCommand(g *global) *cobra.Command {
	flags := &upFlags{settings: settings.Default()}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the platform on this machine",
		Long: `Start the platform on this machine, and run it until Ctrl-C.

The choices made by flags are kept in the state directory: the next weft up without flags runs the same platform, and the other
commands need only --state-dir. Two platforms on one machine need different --state-dir, --name, ports and networks.

When weft is killed, containers and proxy keep running and serving; the next weft up takes them over.`,
		Example: `  # In the background, returning when it is ready
  sudo weft up --detach

  # On port 80, for a domain whose names lead to this machine
  sudo weft up --http-port 80 --domain apps.example.com`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			chosen, err := flags.resolve(g.dir())
			if err != nil {
				return err
			}
			if flags.detach {
				return detach(cmd, chosen)
			}
			progress := openProgress(cmd.OutOrStdout())
			err = up(cmd.Context(), chosen, progress, cmd.ErrOrStderr(), flags.logLevel)
			progress.end(err)
			return err
		},
	}
	flags.register(cmd.Flags())
	return cmd
}

func (f *upFlags) register(fs *pflag.FlagSet) {
	s := &f.settings
	f.flagValues = fs
	fs.BoolVarP(&f.detach, "detach", "d", false, "run in the background and return when the platform is ready")
	fs.StringVar(&s.Name, "name", s.Name, "name of the platform on this machine, at most 8 characters; bridge and firewall table carry it")
	fs.StringVar(&s.Domain, "domain", s.Domain, "suffix of the hosts of services")
	fs.IntVar(&s.HTTPPort, "http-port", s.HTTPPort, "port of the gateway")
	fs.IntVar(&s.HTTPSPort, "https-port", s.HTTPSPort,
		"port of the gateway for HTTPS (default 8443, or 443 beside --http-port 80, or 363 above another --http-port)")
	fs.StringVar(&s.MinTLSVersion, "tls-min-version", s.MinTLSVersion, "oldest version of TLS that the gateway speaks: 1.2 or 1.3 (default 1.2)")
	fs.IntVar(&s.APIPort, "api-port", s.APIPort, "port of the Kubernetes API on 127.0.0.1")
	fs.IntVar(&s.MetricsPort, "metrics-port", s.MetricsPort, "port of the proxy's metrics on 127.0.0.1")
	fs.StringVar(&f.podCIDR, "pod-cidr", s.PodCIDR.String(), "network of the pods")
	fs.StringVar(&f.svcCIDR, "service-cidr", s.ServiceCIDR.String(), "network of the cluster IPs")
	fs.StringVar(&f.proxyAddr, "proxy-address", "",
		"address on which the gateway listens (default loopback for the domain localhost, all addresses for any other)")
	fs.StringVar(&f.hostDNS, "host-dns", "",
		"address, as IP:PORT, on which the pods' DNS server also answers this machine, for example 127.0.0.1:5353 (default only on the bridge)")
	fs.TextVar(&f.logLevel, "log-level", slog.LevelInfo, "least severe messages to print: debug, info, warn or error")
}

// resolve puts the flags that were given on top of what an earlier run kept.
func (f *upFlags) resolve(stateDir string) (settings.Settings, error) {
	s, err := settings.Load(stateDir)
	known := err == nil
	switch {
	case errors.Is(err, settings.ErrNone):
		s = settings.Default()
		s.StateDir = stateDir
	case err != nil:
		return s, err
	}
	earlier := s
	given := f.flagValues.Changed
	set(given("name"), &s.Name, f.settings.Name)
	set(given("domain"), &s.Domain, f.settings.Domain)
	set(given("http-port"), &s.HTTPPort, f.settings.HTTPPort)
	set(given("https-port"), &s.HTTPSPort, f.settings.HTTPSPort)
	set(given("tls-min-version"), &s.MinTLSVersion, f.settings.MinTLSVersion)
	set(given("api-port"), &s.APIPort, f.settings.APIPort)
	set(given("metrics-port"), &s.MetricsPort, f.settings.MetricsPort)
	if err := errors.Join(
		read(given, "pod-cidr", f.podCIDR, &s.PodCIDR, netip.ParsePrefix),
		read(given, "service-cidr", f.svcCIDR, &s.ServiceCIDR, netip.ParsePrefix),
		read(given, "proxy-address", f.proxyAddr, &s.ProxyAddress, netip.ParseAddr),
		read(given, "host-dns", f.hostDNS, &s.HostDNS, netip.ParseAddrPort),
	); err != nil {
		return s, err
	}
	if known {
		if err := s.CheckChange(earlier); err != nil {
			return s, err
		}
	}
	return s, s.Validate()
}

func set[T any](given bool, to *T, value T) {
	if given {
		*to = value
	}
}

// read parses the text of a flag that was given; an empty text is the zero value.
func read[T any](given func(string) bool, flag, text string, to *T, parse func(string) (T, error)) error {
	if !given(flag) {
		return nil
	}
	var value T
	if text != "" {
		var err error
		if value, err = parse(text); err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
	}
	*to = value
	return nil
}

// up runs the platform until ctx ends.
func up(ctx context.Context, s settings.Settings, out *progress, terminal io.Writer, level slog.Level) (err error) {
	if err := preflight.Privileges(); err != nil {
		return err
	}
	if err := preflight.StateDir(s.StateDir); err != nil {
		return err
	}
	lock, err := s.Acquire(ctx)
	if locked, ok := errors.AsType[*settings.LockedError](err); ok && locked.ByName {
		return fmt.Errorf("%w: choose another with --name", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	binaries, err := preflight.FindBinaries()
	if err != nil {
		return err
	}
	_, proxyRuns, err := supervise.Find(teardown.ProxyPIDFile(s.Instance))
	if err != nil {
		return err
	}
	if err := preflight.Ports(ctx, s.Ports(), proxyRuns); err != nil {
		return err
	}
	if err := s.Save(); err != nil {
		return err
	}
	log, err := openLog(s)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	if file, ok := terminal.(*os.File); ok {
		if err := silenceLibraries(log, file); err != nil {
			return err
		}
	}
	began := time.Now()
	return server.Run(ctx, server.Options{
		Settings: s, Binaries: binaries, Version: version,
		Log:      slog.New(slog.NewTextHandler(terminal, &slog.HandlerOptions{Level: level})),
		Step:     out.step,
		Ready:    func() { out.ready(s, time.Since(began)) },
		Stopping: out.stopping,
	})
}

// summary is what a user wants to know about a platform that is ready.
func summary(s settings.Settings) string {
	return fmt.Sprintf(`
  Services    %s
              %s
  Kubernetes  https://127.0.0.1:%d
  Kubeconfig  %s
  State       %s
  Metrics     http://127.0.0.1:%d/metrics
`, s.ServiceURL("http"), s.ServiceURL("https"), s.APIPort, s.Kubeconfig(), s.StateDir, s.MetricsPort)
}
