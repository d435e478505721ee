package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// Options of a Server.
type Options struct {
	// Listen are the addresses to answer on, by UDP and TCP. Required for Run.
	Listen []netip.AddrPort
	// ClusterDomain is the suffix of Service names, "cluster.local" when empty.
	ClusterDomain string
	// Domain is the suffix of public hosts. Every name below it is Gateway, the address at which pods reach the gateway. Nothing is
	// special about it when empty.
	Domain  string
	Gateway netip.Addr
	// Upstreams are asked for all other names, in this order. When empty, they are those of ResolvConf, read again when it changes.
	Upstreams []netip.AddrPort
	// ResolvConf is "/etc/resolv.conf" when empty.
	ResolvConf string
	// Timeout bounds the wait for one upstream, 2 s when zero.
	Timeout time.Duration
	// CacheSize bounds the forwarded answers that are kept, 4096 when zero. MaxForwards bounds the queries that wait for an
	// upstream, 512 when zero; those beyond are answered SERVFAIL.
	CacheSize, MaxForwards int
	// Logger is silent when nil.
	Logger *slog.Logger
}

func (o *Options) complete() {
	o.ClusterDomain = mdns.CanonicalName(cmp.Or(o.ClusterDomain, "cluster.local"))
	if o.Domain != "" {
		o.Domain = mdns.CanonicalName(o.Domain)
	}
	o.ResolvConf = cmp.Or(o.ResolvConf, "/etc/resolv.conf")
	o.Timeout = cmp.Or(o.Timeout, 2*time.Second)
	o.CacheSize = cmp.Or(o.CacheSize, 4096)
	o.MaxForwards = cmp.Or(o.MaxForwards, 512)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Server answers queries. Apply may be called at any time, concurrently with Run.
type Server struct {
	opts    Options
	zone    *zone
	forward *forwarder
}

// New returns a Server that knows no Service.
func New(opts Options) *Server {
	opts.complete()
	return &Server{opts: opts, zone: newZone(opts.ClusterDomain), forward: newForwarder(opts)}
}

// udpSize is the largest answer by UDP: what fits into one unfragmented packet everywhere, by the flag day agreement of 2020.
const udpSize = 1232

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	var servers []*mdns.Server
	defer func() {
		for _, server := range servers {
			// Closes sockets of servers that never ran; the others are closed already.
			closeSockets(server)
		}
	}()
	for _, addr := range s.opts.Listen {
		packets, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", addr.String())
		if err != nil {
			return fmt.Errorf("listening for queries: %w", err)
		}
		servers = append(servers, &mdns.Server{PacketConn: packets, Handler: s.handler(ctx, "udp"), UDPSize: mdns.DefaultMsgSize})
		streams, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr.String())
		if err != nil {
			return fmt.Errorf("listening for queries: %w", err)
		}
		servers = append(servers, &mdns.Server{Listener: streams, Handler: s.handler(ctx, "tcp")})
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, server := range servers {
		group.Go(func() error {
			// The socket is closed rather than the server shut down, because shutting down fails before the server has started.
			stop := context.AfterFunc(ctx, func() { closeSockets(server) })
			defer stop()
			if err := server.ActivateAndServe(); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("answering queries: %w", err)
			}
			return nil
		})
	}
	return group.Wait()
}

func closeSockets(server *mdns.Server) {
	if server.PacketConn != nil {
		_ = server.PacketConn.Close()
	}
	if server.Listener != nil {
		_ = server.Listener.Close()
	}
}

// handler answers queries of one transport.
func (s *Server) handler(ctx context.Context, network string) mdns.Handler {
	return mdns.HandlerFunc(func(w mdns.ResponseWriter, query *mdns.Msg) {
		reply := s.answer(ctx, network, query)
		finish(reply, query, network)
		if err := w.WriteMsg(reply); err != nil {
			s.opts.Logger.Debug("answer not sent", "client", w.RemoteAddr().String(), "error", err)
		}
	})
}

// answer resolves one query.
func (s *Server) answer(ctx context.Context, network string, query *mdns.Msg) *mdns.Msg {
	reply := new(mdns.Msg).SetReply(query)
	reply.RecursionAvailable = true
	opt := query.IsEdns0()
	switch {
	case query.Opcode != mdns.OpcodeQuery:
		reply.Rcode = mdns.RcodeNotImplemented
		return reply
	case len(query.Question) != 1:
		reply.Rcode = mdns.RcodeFormatError
		return reply
	case opt != nil && opt.Version() != 0:
		reply.Rcode = mdns.RcodeBadVers
		return reply
	case query.Question[0].Qclass != mdns.ClassINET && query.Question[0].Qclass != mdns.ClassANY:
		reply.Rcode = mdns.RcodeRefused
		return reply
	}
	s.resolve(ctx, network, query, reply)
	return reply
}

// maxChase bounds a chain of Services that are names of each other.
const maxChase = 8

// resolve fills a reply. Aliases lead from one source of names to another: an external name can be a Service, a public host or any name.
func (s *Server) resolve(ctx context.Context, network string, query, reply *mdns.Msg) {
	question := query.Question[0]
	name := mdns.CanonicalName(question.Name)
	// Records of the name that was asked for carry it as it was written, because some clients compare.
	owner := question.Name
	for range maxChase {
		found, own := s.local(name, owner, question.Qtype)
		if !own {
			s.ask(ctx, network, query, reply, owner)
			return
		}
		reply.Authoritative = true
		reply.Rcode = found.rcode
		reply.Answer = append(reply.Answer, found.records...)
		reply.Extra = append(reply.Extra, found.extra...)
		if found.alias == "" {
			if len(found.records) == 0 {
				reply.Ns = append(reply.Ns, found.authority)
			}
			return
		}
		name, owner = mdns.CanonicalName(found.alias), found.alias
	}
	reply.Rcode = mdns.RcodeServerFailure
}

// local answers from the names of the platform; own is false for all others.
func (s *Server) local(name, owner string, qtype uint16) (found answer, own bool) {
	if found, own := s.zone.lookup(name, owner, qtype); own {
		return found, true
	}
	return s.public(name, owner, qtype)
}

// ask adds the answer of an upstream for a name to a reply.
func (s *Server) ask(ctx context.Context, network string, query, reply *mdns.Msg, name string) {
	upstream := new(mdns.Msg)
	upstream.SetQuestion(name, query.Question[0].Qtype)
	upstream.Question[0].Qclass = query.Question[0].Qclass
	upstream.RecursionDesired = query.RecursionDesired
	upstream.CheckingDisabled = query.CheckingDisabled
	upstream.AuthenticatedData = query.AuthenticatedData
	if opt := query.IsEdns0(); opt != nil {
		upstream.SetEdns0(udpSize, opt.Do())
	}
	result, err := s.forward.exchange(ctx, network, upstream)
	if err != nil {
		s.opts.Logger.Debug("query not answered", "name", name, "error", err)
		reply.Rcode = mdns.RcodeServerFailure
		return
	}
	if len(reply.Answer) == 0 {
		reply.Authoritative = result.Authoritative
		reply.AuthenticatedData = result.AuthenticatedData
	}
	reply.Rcode = result.Rcode
	reply.Truncated = result.Truncated
	reply.Answer = append(reply.Answer, result.Answer...)
	reply.Ns = append(reply.Ns, result.Ns...)
	reply.Extra = append(reply.Extra, result.Extra...)
}

// finish adds the EDNS record and cuts an answer to what the client can take.
func finish(reply, query *mdns.Msg, network string) {
	size := mdns.MinMsgSize
	if opt := query.IsEdns0(); opt != nil {
		size = min(max(int(opt.UDPSize()), mdns.MinMsgSize), udpSize)
		reply.SetEdns0(udpSize, opt.Do())
	}
	if network == "tcp" {
		size = mdns.MaxMsgSize
	}
	truncated := reply.Truncated
	reply.Truncate(size)
	reply.Truncated = reply.Truncated || truncated
}
