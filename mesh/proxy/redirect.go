package proxy

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/weft-dev/weft/mesh/filter"
)

// defaultHTTPSPort is left out of URLs.
const defaultHTTPSPort = 443

// redirects says whether a request has to come again with TLS. It is told so before a rule is looked for, so that plain requests wake
// nothing and show nothing.
func (v *virtualHost) redirects(x *filter.Exchange) bool { return v.httpsPort != 0 && !x.Secure }

// redirect sends a client to the same place by https.
func redirect(x *filter.Exchange, port uint32) error {
	host := x.Request.Host
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	if port != defaultHTTPSPort {
		host += ":" + strconv.FormatUint(uint64(port), 10)
	}
	target := x.Request.Target
	if !strings.HasPrefix(target, "/") {
		target = "/" // "*" asks about the host as a whole
	}
	x.Header.Append("Location", "https://"+host+target)
	return x.Reply(http.StatusMovedPermanently, "text/plain; charset=utf-8", "")
}
