package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Seconds that others may keep an answer. Members come and move: short, and
// for "no such name" shorter, because the one asked for may be joining.
const (
	ttl         = 5
	negativeTTL = 2
)

// udpSize is the largest answer by UDP in bytes; no path fragments it.
const udpSize = 1232

// tcpIdle ends a TCP connection without questions.
const tcpIdle = 5 * time.Second

// Server answers questions about one zone by UDP and TCP, and refuses all others.
type Server struct {
	addr    netip.AddrPort
	zone    atomic.Pointer[Zone]
	servers []*dns.Server
	running sync.WaitGroup
	log     *slog.Logger
}

// Listen starts a server on addr; with port 0 it takes a free one. Until
// SetZone every question fails with SERVFAIL. The caller closes the server.
func Listen(ctx context.Context, addr netip.AddrPort, log *slog.Logger) (*Server, error) {
	if log == nil {
		log = slog.Default()
	}
	pc, ln, err := listenBoth(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("listen for dns on %s: %w", addr, err)
	}
	s := &Server{log: log, addr: ln.Addr().(*net.TCPAddr).AddrPort()}
	s.serve(&dns.Server{PacketConn: pc, UDPSize: udpSize})
	s.serve(&dns.Server{Listener: ln, IdleTimeout: func() time.Duration { return tcpIdle }})
	return s, nil
}

// listenBoth takes the same port for UDP and TCP.
func listenBoth(ctx context.Context, addr netip.AddrPort) (net.PacketConn, net.Listener, error) {
	const tries = 10 // with port 0: the port that TCP gets may be taken for UDP
	var lc net.ListenConfig
	for try := 1; ; try++ {
		ln, err := lc.Listen(ctx, "tcp", addr.String())
		if err != nil {
			return nil, nil, err
		}
		pc, err := lc.ListenPacket(ctx, "udp", ln.Addr().String())
		if err == nil {
			return pc, ln, nil
		}
		err = errors.Join(err, ln.Close())
		if addr.Port() != 0 || try == tries {
			return nil, nil, err
		}
	}
}

// serve runs one server and returns when it answers, or could not start.
func (s *Server) serve(srv *dns.Server) {
	ready := make(chan struct{})
	srv.Handler = dns.HandlerFunc(s.answer)
	srv.NotifyStartedFunc = sync.OnceFunc(func() { close(ready) })
	s.servers = append(s.servers, srv)
	s.running.Go(func() {
		defer srv.NotifyStartedFunc()
		if err := srv.ActivateAndServe(); err != nil {
			s.log.Error("dns server stopped", "addr", s.addr, "err", err)
		}
	})
	<-ready
}

// Addr is where the server listens.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// SetZone makes the server answer from z from now on.
func (s *Server) SetZone(z *Zone) { s.zone.Store(z) }

// Close stops the server and waits for its goroutines.
func (s *Server) Close() error {
	var errs []error
	for _, srv := range s.servers {
		errs = append(errs, srv.Shutdown())
	}
	s.running.Wait()
	return errors.Join(errs...)
}

// answer handles one question.
func (s *Server) answer(w dns.ResponseWriter, r *dns.Msg) {
	m := s.reply(r)
	size := dns.MaxMsgSize
	if opt := r.IsEdns0(); opt != nil {
		m.SetEdns0(udpSize, false)
		if opt.Version() != 0 {
			m.Rcode = dns.RcodeBadVers
		}
	}
	if w.RemoteAddr().Network() == "udp" {
		size = dns.MinMsgSize
		if opt := r.IsEdns0(); opt != nil {
			size = min(max(int(opt.UDPSize()), size), udpSize)
		}
	}
	m.Truncate(size)
	if err := w.WriteMsg(m); err != nil {
		s.log.Debug("dns answer not sent", "addr", w.RemoteAddr(), "err", err)
	}
}

// reply is what the zone says to r, whatever it came by.
func (s *Server) reply(r *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(r)
	m.RecursionAvailable = false
	z := s.zone.Load()
	if z == nil {
		m.Rcode = dns.RcodeServerFailure
		return m
	}
	if r.Opcode != dns.OpcodeQuery || len(r.Question) != 1 {
		m.Rcode = dns.RcodeRefused
		return m
	}
	q := r.Question[0]
	name := dns.CanonicalName(q.Name)
	if q.Qclass != dns.ClassINET && q.Qclass != dns.ClassANY || !z.covers(name) {
		m.Rcode = dns.RcodeRefused
		return m
	}
	m.Authoritative = true
	addrs, exists := z.lookup(name)
	if !exists {
		m.Rcode = dns.RcodeNameError
	}
	for _, a := range addrs {
		if rr := record(q, a); rr != nil {
			m.Answer = append(m.Answer, rr)
		}
	}
	switch {
	case len(m.Answer) > 0:
	case name == z.domain && q.Qtype == dns.TypeSOA:
		m.Answer = append(m.Answer, z.soa())
	default:
		m.Ns = append(m.Ns, z.soa())
	}
	return m
}

// record is a as an answer to q, nil if q is about something else.
func record(q dns.Question, a netip.Addr) dns.RR {
	header := dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Ttl: ttl}
	switch {
	case a.Is4() && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY):
		header.Rrtype = dns.TypeA
		return &dns.A{Hdr: header, A: a.AsSlice()}
	case a.Is6() && (q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY):
		header.Rrtype = dns.TypeAAAA
		return &dns.AAAA{Hdr: header, AAAA: a.AsSlice()}
	}
	return nil
}

// soa carries the negative TTL (RFC 2308); nobody transfers the zone.
func (z *Zone) soa() dns.RR {
	return &dns.SOA{
		Hdr:     dns.RR_Header{Name: z.domain, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: negativeTTL},
		Ns:      z.domain,
		Mbox:    "nobody." + z.domain,
		Serial:  1,
		Refresh: 3600, Retry: 600, Expire: 86400,
		Minttl: negativeTTL,
	}
}
