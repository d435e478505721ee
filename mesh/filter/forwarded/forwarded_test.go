package forwarded_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-dev/weft/mesh/filter"
	"github.com/weft-dev/weft/mesh/filter/forwarded"
)

// end is the handler behind the filter.
type end struct{ header http.Header }

func (e *end) Handle(x *filter.Exchange) error {
	e.header = make(http.Header)
	for _, f := range x.Request.Header.Fields() {
		e.header.Add(f.Name, f.Value)
	}
	return nil
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, peer, host string
		secure           bool
		header           http.Header
		want             http.Header
	}{
		{
			name: "first hop", peer: "10.1.2.3:4567", host: "a.test",
			want: http.Header{
				"Forwarded": {"for=10.1.2.3;host=a.test;proto=http"}, "X-Forwarded-For": {"10.1.2.3"},
				"X-Forwarded-Host": {"a.test"}, "X-Forwarded-Proto": {"http"},
			},
		},
		{
			name: "IPv6, a port and TLS", peer: "[2001:db8::1]:4567", host: "a.test:8443", secure: true,
			want: http.Header{
				"Forwarded": {`for="[2001:db8::1]";host="a.test:8443";proto=https`}, "X-Forwarded-For": {"2001:db8::1"},
				"X-Forwarded-Host": {"a.test:8443"}, "X-Forwarded-Proto": {"https"},
			},
		},
		{
			name: "claims of the client", peer: "10.1.2.3:1", host: "a.test",
			header: http.Header{
				"X-Forwarded-For": {"1.1.1.1, 2001:db8::2", "2.2.2.2"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"b.test"},
			},
			want: http.Header{
				"Forwarded":       {`for=1.1.1.1, for="[2001:db8::2]", for=2.2.2.2, for=10.1.2.3;host=a.test;proto=http`},
				"X-Forwarded-For": {"1.1.1.1, 2001:db8::2, 2.2.2.2, 10.1.2.3"}, "X-Forwarded-Host": {"a.test"}, "X-Forwarded-Proto": {"http"},
			},
		},
		{
			name: "Forwarded before", peer: "10.1.2.3:1", host: "a.test",
			header: http.Header{"Forwarded": {"for=9.9.9.9", "for=8.8.8.8"}},
			want: http.Header{
				"Forwarded": {"for=9.9.9.9, for=8.8.8.8, for=10.1.2.3;host=a.test;proto=http"}, "X-Forwarded-For": {"10.1.2.3"},
				"X-Forwarded-Host": {"a.test"}, "X-Forwarded-Proto": {"http"},
			},
		},
		{
			name: "odd peer and host", peer: "@", host: `a"\b`,
			want: http.Header{
				"Forwarded": {`for=unknown;host="a\"\\b";proto=http`}, "X-Forwarded-For": {"unknown"},
				"X-Forwarded-Host": {`a"\b`}, "X-Forwarded-Proto": {"http"},
			},
		},
		{
			name: "no host", peer: "10.1.2.3:1",
			want: http.Header{
				"Forwarded": {`for=10.1.2.3;host="";proto=http`}, "X-Forwarded-For": {"10.1.2.3"},
				"X-Forwarded-Host": {""}, "X-Forwarded-Proto": {"http"},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.RemoteAddr, r.Host = tt.peer, tt.host
			if tt.header != nil {
				r.Header = tt.header
			}
			x := new(filter.Exchange)
			x.Begin(httptest.NewRecorder(), r)
			x.Secure = tt.secure
			var last end
			if err := forwarded.New(&last).Handle(x); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, last.header); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
