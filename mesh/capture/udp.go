package capture

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// maxDatagram is the largest payload of UDP over IPv4.
const maxDatagram = 65507

// udpService is the socket of one UDP port of a cluster IP.
type udpService struct {
	server *Server
	conn   *net.UDPConn
	// done closes when the socket and all its flows are closed.
	done chan struct{}

	address netip.AddrPort
	to      destination

	// mu guards flows.
	mu    sync.Mutex
	flows map[netip.AddrPort]*flow
}

// flow is the traffic of one client with one UDP port of a cluster IP.
type flow struct {
	Connection
	endpoint *endpoint
	upstream *net.UDPConn
	// last is the time of the client's last datagram, in nanoseconds since the epoch.
	last atomic.Int64
}

// serveUDP keeps one socket per UDP port of the Services until ctx ends.
func (s *Server) serveUDP(ctx context.Context) error {
	open := make(map[netip.AddrPort]*udpService)
	for {
		want := s.table.udpPorts()
		for at, svc := range open {
			if want[at] != svc.to {
				svc.close()
				delete(open, at)
			}
		}
		for at, to := range want {
			if open[at] != nil {
				continue
			}
			svc, err := s.openUDP(ctx, at, to)
			if err != nil {
				s.opts.Logger.Error("UDP port of service not captured", "service", to.service, "destination", at, "error", err)
				continue
			}
			open[at] = svc
		}
		select {
		case <-ctx.Done():
			for _, svc := range open {
				svc.close()
			}
			return nil
		case <-s.udpChanged:
		}
	}
}

func (s *Server) openUDP(ctx context.Context, at netip.AddrPort, to destination) (*udpService, error) {
	conn, err := (&net.ListenConfig{Control: controlService}).ListenPacket(ctx, "udp4", at.String())
	if err != nil {
		return nil, err
	}
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		_ = conn.Close()
		return nil, errors.New("socket is not a UDP one")
	}
	svc := &udpService{
		server: s, conn: udp, done: make(chan struct{}), address: at, to: to, flows: make(map[netip.AddrPort]*flow),
	}
	go svc.run(ctx)
	return svc, nil
}

// close ends the socket and waits for its flows.
func (u *udpService) close() {
	_ = u.conn.Close()
	<-u.done
}

// run takes the clients' datagrams.
func (u *udpService) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer close(u.done)
	defer wg.Wait()
	defer u.closeFlows()
	buf := make([]byte, maxDatagram)
	for {
		n, source, err := u.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// An ICMP error of an earlier answer. The socket is fine.
			continue
		}
		source = netip.AddrPortFrom(source.Addr().Unmap(), source.Port())
		f := u.flow(ctx, source, &wg)
		if f == nil {
			u.server.refused.Add(1)
			continue
		}
		f.last.Store(time.Now().UnixNano())
		if _, err := f.upstream.Write(buf[:n]); err != nil {
			// The endpoint refuses: the next datagram chooses again.
			u.forget(f)
		}
	}
}

// flow finds or opens the flow of a client.
func (u *udpService) flow(ctx context.Context, source netip.AddrPort, wg *sync.WaitGroup) *flow {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f := u.flows[source]; f != nil {
		if !f.endpoint.gone.Load() {
			return f
		}
		u.drop(f)
	}
	s := u.server
	if s.flows.Add(1) > int64(s.opts.MaxFlows) {
		s.flows.Add(-1)
		return nil
	}
	ep := s.table.choose(u.to.backend, nil)
	if ep == nil {
		s.flows.Add(-1)
		return nil
	}
	conn, err := s.dialer.DialContext(ctx, "udp4", ep.address.String())
	upstream, ok := conn.(*net.UDPConn)
	if err != nil || !ok {
		ep.active.Add(-1)
		s.flows.Add(-1)
		return nil
	}
	f := &flow{
		Connection: Connection{Source: source, Destination: u.address, Service: u.to.service, Backend: u.to.backend},
		endpoint:   ep, upstream: upstream,
	}
	f.last.Store(time.Now().UnixNano())
	u.flows[source] = f
	wg.Go(func() {
		defer s.flows.Add(-1)
		defer ep.active.Add(-1)
		u.answer(f)
	})
	return f
}

// answer carries datagrams back until the flow has been silent for the idle timeout or its socket is closed.
func (u *udpService) answer(f *flow) {
	defer u.forget(f)
	idle := u.server.opts.UDPIdleTimeout
	buf := make([]byte, maxDatagram)
	for {
		if err := f.upstream.SetReadDeadline(time.Now().Add(idle)); err != nil {
			return
		}
		n, err := f.upstream.Read(buf)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			if time.Since(time.Unix(0, f.last.Load())) >= idle {
				return
			}
		case err != nil:
			return
		default:
			_, _ = u.conn.WriteToUDPAddrPort(buf[:n], f.Source)
		}
	}
}

func (u *udpService) forget(f *flow) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.drop(f)
}

// drop closes a flow and takes it out, unless another has its place. The caller holds mu.
func (u *udpService) drop(f *flow) {
	_ = f.upstream.Close()
	if u.flows[f.Source] == f {
		delete(u.flows, f.Source)
	}
}

func (u *udpService) closeFlows() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, f := range u.flows {
		u.drop(f)
	}
}
