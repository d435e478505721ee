package server

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-dev/weft/cmd/weft/settings"
	meshconfig "github.com/weft-dev/weft/mesh/config"
)

// TestListeners has the port of the gateway be that of the cluster-local listener, too: two sockets at one address would make the proxy
// reject all.
func TestListeners(t *testing.T) {
	t.Parallel()
	loopback := netip.MustParseAddr("127.0.8.1")
	for _, tt := range []struct {
		name    string
		address netip.Addr
		port    int
		want    []string
	}{
		{
			name: "own port", address: loopback, port: 8080,
			want: []string{"127.0.8.1:8080 EXTERNAL HTTP", "10.1.0.1:8080 EXTERNAL HTTP", "10.1.0.1:80 CLUSTER_LOCAL HTTP"},
		},
		{
			name: "the cluster-local listener's port", address: loopback, port: 80,
			want: []string{"127.0.8.1:80 EXTERNAL HTTP", "10.1.0.1:80 CLUSTER_LOCAL HTTP"},
		},
		{
			name: "own port on all addresses", address: netip.IPv4Unspecified(), port: 8080,
			want: []string{"0.0.0.0:8080 EXTERNAL HTTP", "10.1.0.1:80 CLUSTER_LOCAL HTTP"},
		},
		{
			name: "the cluster-local listener's port on all addresses", address: netip.IPv4Unspecified(), port: 80,
			want: []string{"0.0.0.0:80 EXTERNAL HTTP"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := settings.Default()
			s.PodCIDR, s.ProxyAddress, s.HTTPPort = netip.MustParsePrefix("10.1.0.0/16"), tt.address, tt.port
			var got, names []string
			for _, l := range (&platform{Options: Options{Settings: s}}).listeners() {
				names = append(names, l.GetName())
				if l.GetProtocol() == meshconfig.Listener_HTTP {
					got = append(got, fmt.Sprintf("%s:%d %s %s", l.GetAddress(), l.GetPort(), l.GetVisibility(), l.GetProtocol()))
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if slices.Sort(names); len(slices.Compact(names)) != len(names) {
				t.Errorf("names are not unique: %v", names)
			}
		})
	}
}
