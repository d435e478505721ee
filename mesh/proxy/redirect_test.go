package proxy_test

import (
	"net/http"
	"testing"

	"github.com/weft-dev/weft/mesh/config"
)

func TestRedirectToHTTPS(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	to := []*config.Rule{{Splits: []*config.Split{{Backend: "nobody is asked", Weight: 1}}}}
	h.apply(config.RouteType, &config.Route{Name: "knative/default/r", VirtualHosts: []*config.VirtualHost{
		{Hosts: []string{"standard.test"}, Rules: to, HttpsRedirectPort: 443},
		{Hosts: []string{"other.test"}, Rules: to, HttpsRedirectPort: 8443},
	}})
	for _, tt := range []struct {
		name, method, host, path string
		local                    bool
		want                     string
	}{
		{name: "standard port", host: "standard.test", path: "/", want: "https://standard.test/"},
		{name: "another port", host: "other.test", path: "/", want: "https://other.test:8443/"},
		{name: "the port of plain HTTP goes", host: "standard.test:8080", path: "/a", want: "https://standard.test/a"},
		{name: "path and query", host: "other.test:8080", path: "//a%2Fb?c=d%20e&f", want: "https://other.test:8443//a%2Fb?c=d%20e&f"},
		{name: "another method", method: http.MethodPost, host: "standard.test", path: "/a", want: "https://standard.test/a"},
		{name: "from a pod", host: "standard.test", path: "/", local: true, want: "https://standard.test/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := h.request(tt.method, tt.host, tt.path, nil)
			if tt.local {
				r.URL.Host = h.local
			}
			res, body := h.do(r)
			if got := res.Header.Get("Location"); res.StatusCode != http.StatusMovedPermanently || got != tt.want || body != "" {
				t.Errorf("got %d %q and a body of %q, want 301 %q without a body", res.StatusCode, got, body, tt.want)
			}
		})
	}
}
