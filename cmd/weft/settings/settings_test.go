package settings_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weft-dev/weft/cmd/weft/settings"
	"github.com/weft-dev/weft/internal/instance"
)

func comparePrefixes() cmp.Option {
	return cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}, netip.AddrPort{})
}

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	want := settings.Default()
	want.StateDir = t.TempDir()
	want.Name, want.Domain, want.HTTPPort = "test", "apps.example.com", 80
	want.PodCIDR = netip.MustParsePrefix("10.99.0.0/16")
	want.ProxyAddress = netip.MustParseAddr("192.0.2.1")
	if err := want.Save(); err != nil {
		t.Fatal(err)
	}
	got, err := settings.Load(want.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, comparePrefixes()); diff != "" {
		t.Errorf("settings (-saved +loaded):\n%s", diff)
	}
}

func TestServiceURL(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		http, https   int
		want, wantTLS string
	}{
		{8080, 0, "http://NAME.NAMESPACE.localhost:8080", "https://NAME.NAMESPACE.localhost:8443"},
		{80, 0, "http://NAME.NAMESPACE.localhost", "https://NAME.NAMESPACE.localhost"},
		{18080, 0, "http://NAME.NAMESPACE.localhost:18080", "https://NAME.NAMESPACE.localhost:18443"},
		{80, 8443, "http://NAME.NAMESPACE.localhost", "https://NAME.NAMESPACE.localhost:8443"},
		{8080, 443, "http://NAME.NAMESPACE.localhost:8080", "https://NAME.NAMESPACE.localhost"},
	} {
		s := settings.Default()
		s.HTTPPort, s.HTTPSPort = tc.http, tc.https
		if got := s.ServiceURL("http"); got != tc.want {
			t.Errorf("--http-port %d --https-port %d: %s, want %s", tc.http, tc.https, got, tc.want)
		}
		if got := s.ServiceURL("https"); got != tc.wantTLS {
			t.Errorf("--http-port %d --https-port %d: %s, want %s", tc.http, tc.https, got, tc.wantTLS)
		}
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, content string
		// none means that there is no file.
		none     bool
		wantNone bool
		want     string
	}{
		{name: "no file", none: true, wantNone: true, want: "weft up"},
		{name: "broken file", content: `{"name":`, want: "instance.json"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if !test.none {
				if err := os.WriteFile(filepath.Join(dir, "instance.json"), []byte(test.content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := settings.Load(dir)
			if err == nil || errors.Is(err, settings.ErrNone) != test.wantNone || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want ErrNone %t and mention of %q", err, test.wantNone, test.want)
			}
		})
	}
}

// TestLoadOldFile keeps files of earlier versions readable: what they do not name has its default.
func TestLoadOldFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "instance.json"), []byte(`{"name":"old","httpPort":81}`), 0o600); err != nil {
		t.Fatal(err)
	}
	want := settings.Default()
	want.StateDir, want.Name, want.HTTPPort = dir, "old", 81
	got, err := settings.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, comparePrefixes()); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*settings.Settings)
		// want is part of the error; empty means none.
		want string
	}{
		{name: "default", change: func(*settings.Settings) {}},
		{name: "same port twice", change: func(s *settings.Settings) { s.MetricsPort = s.HTTPPort }, want: "--http-port and --metrics-port are both 8080"},
		{name: "port too big", change: func(s *settings.Settings) { s.APIPort = 70000 }, want: "--api-port 70000"},
		{name: "HTTPS port taken", change: func(s *settings.Settings) { s.HTTPSPort = s.APIPort }, want: "--https-port and --api-port are both 6443"},
		{name: "HTTPS port follows out of range", change: func(s *settings.Settings) { s.HTTPPort = 65300 }, want: "--https-port 65663"},
		{name: "TLS version", change: func(s *settings.Settings) { s.MinTLSVersion = "1.1" }, want: `--tls-min-version "1.1"`},
		{name: "port zero", change: func(s *settings.Settings) { s.HTTPPort = 0 }, want: "--http-port 0"},
		{name: "name too long", change: func(s *settings.Settings) { s.Name = "much-too-long" }, want: "name"},
		{name: "long path", change: func(s *settings.Settings) { s.StateDir = "/" + strings.Repeat("x", 90) }, want: "longer than 80"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := settings.Default()
			test.change(&s)
			err := s.Validate()
			switch {
			case test.want == "" && err != nil:
				t.Errorf("error %v, want none", err)
			case test.want != "" && (!errors.Is(err, instance.ErrInvalid) || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want ErrInvalid with %q", err, test.want)
			}
		})
	}
}

func TestCheckChange(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*settings.Settings)
		want   string
	}{
		{name: "ports may change", change: func(s *settings.Settings) { s.HTTPPort = 80 }},
		{name: "domain may change", change: func(s *settings.Settings) { s.Domain = "example.com" }},
		{name: "name may not", change: func(s *settings.Settings) { s.Name = "other" }, want: "--name"},
		{name: "pod network may not", change: func(s *settings.Settings) { s.PodCIDR = netip.MustParsePrefix("10.1.0.0/16") }, want: "--pod-cidr"},
		{name: "service network may not", change: func(s *settings.Settings) { s.ServiceCIDR = netip.MustParsePrefix("10.1.0.0/16") }, want: "--service-cidr"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := settings.Default()
			test.change(&s)
			err := s.CheckChange(settings.Default())
			if (test.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want mention of %q", err, test.want)
			}
		})
	}
}

func TestGatewayAddresses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*settings.Settings)
		want   netip.Addr
	}{
		{name: "localhost stays on this machine", change: func(*settings.Settings) {}, want: netip.MustParseAddr("127.0.0.1")},
		{name: "another domain is for others", change: func(s *settings.Settings) { s.Domain = "example.com" }, want: netip.IPv4Unspecified()},
		{name: "a choice counts", change: func(s *settings.Settings) { s.ProxyAddress = netip.MustParseAddr("192.0.2.1") }, want: netip.MustParseAddr("192.0.2.1")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := settings.Default()
			test.change(&s)
			if got := s.GatewayAddresses(); got[0] != test.want {
				t.Errorf("first address %s, want %s", got[0], test.want)
			}
		})
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	s := settings.Default()
	s.StateDir, s.Name = t.TempDir(), "t"+strconv.FormatInt(int64(os.Getpid()), 36)
	owner := func() int {
		pid, err := s.Owner()
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	if got := owner(); got != 0 {
		t.Errorf("owner before the lock is %d", got)
	}
	lock, err := s.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := owner(); got != os.Getpid() {
		t.Errorf("owner is %d, want %d", got, os.Getpid())
	}

	var locked *settings.LockedError
	if _, err := s.Acquire(t.Context()); !errors.As(err, &locked) || locked.PID != os.Getpid() || !strings.Contains(err.Error(), s.StateDir) {
		t.Errorf("second lock of the directory: %v, want one that names directory and pid", err)
	}
	sameName := s
	sameName.StateDir = t.TempDir()
	if _, err := sameName.Acquire(t.Context()); !errors.As(err, &locked) || locked.PID != os.Getpid() || !strings.Contains(err.Error(), s.Name) {
		t.Errorf("second lock of the name: %v, want one that tells name and pid", err)
	}

	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if got := owner(); got != 0 {
		t.Errorf("owner after the release is %d", got)
	}
	again, err := s.Acquire(t.Context())
	if err != nil {
		t.Fatalf("lock after the release: %v", err)
	}
	if err := again.Release(); err != nil {
		t.Error(err)
	}
}
