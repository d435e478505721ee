package engine

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// Protocol is what an instance speaks.
type Protocol int

// The protocols.
const (
	HTTP1 Protocol = iota
	// H2C is HTTP/2 with prior knowledge over plain TCP.
	H2C
)

const (
	// dialTimeout is generous for the same machine and short enough to try another instance within a client's patience.
	dialTimeout = 3 * time.Second
	// upstreamIdle is below the keep-alive timeout of common servers (Node.js and uvicorn close after 5 s), because a request
	// sent into a closing connection is the classic cause of a stray 502.
	upstreamIdle = 4 * time.Second
	maxIdleConns = 512
	// pingAfter and pingTimeout find out that the peer of a quiet HTTP/2 connection is gone.
	pingAfter   = 15 * time.Second
	pingTimeout = 5 * time.Second
)

// Upstream holds the connections to one instance. It may be used concurrently.
type Upstream struct {
	address string

	// mu guards creation of the transports; most instances need only one of them.
	mu         sync.Mutex
	transports [2]*http.Transport
}

// NewUpstream returns the upstream at "ip:port". It dials on demand.
func NewUpstream(address string) *Upstream { return &Upstream{address: address} }

// Close closes idle connections. The upstream stays usable.
func (u *Upstream) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, t := range u.transports {
		if t != nil {
			t.CloseIdleConnections()
		}
	}
	return nil
}

func (u *Upstream) transport(p Protocol) *http.Transport {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.transports[p] == nil {
		u.transports[p] = newTransport(p)
	}
	return u.transports[p]
}

func newTransport(p Protocol) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(p == HTTP1)
	protocols.SetUnencryptedHTTP2(p == H2C)
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		Protocols:              protocols,
		DisableCompression:     true, // bytes pass as they are
		MaxIdleConnsPerHost:    maxIdleConns,
		IdleConnTimeout:        upstreamIdle,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
}
