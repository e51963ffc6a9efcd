package mesh

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy is a network between two nodes that can be told what gets through:
// TCP and UDP on one port, carried to another address.
//
//	node a --> proxy :port --(frozen? no udp?)--> node b
type proxy struct {
	addr   netip.AddrPort
	to     netip.AddrPort
	frozen atomic.Bool // nothing gets through, and nobody is told
	udp    atomic.Bool // datagrams get through

	mu    sync.Mutex
	conns []net.Conn
}

func newProxy(t testing.TB, to netip.AddrPort) *proxy {
	t.Helper()
	p := &proxy{to: to}
	p.udp.Store(true)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().(*net.TCPAddr).AddrPort()
	pc, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(p.addr))
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { p.serveTCP(l, &running) })
	running.Go(func() { p.serveUDP(pc, &running) })
	t.Cleanup(func() {
		_ = l.Close()
		_ = pc.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.conns = nil
		p.mu.Unlock()
		running.Wait()
	})
	return p
}

func (p *proxy) keep(c net.Conn) net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, c)
	return c
}

func (p *proxy) serveTCP(l net.Listener, running *sync.WaitGroup) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		p.keep(in)
		out, err := net.Dial("tcp4", p.to.String())
		if err != nil {
			_ = in.Close()
			continue
		}
		p.keep(out)
		for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
			running.Go(func() { p.copy(way[0], way[1]) })
		}
	}
}

// copy carries bytes one way; frozen, it swallows them.
func (p *proxy) copy(from, to net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.frozen.Load() {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			if !p.frozen.Load() || errors.Is(err, net.ErrClosed) {
				_ = to.Close()
			}
			return
		}
	}
}

func (p *proxy) serveUDP(pc *net.UDPConn, running *sync.WaitGroup) {
	back := make(map[netip.AddrPort]*net.UDPConn)
	buf := make([]byte, 64<<10)
	for {
		n, from, err := pc.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if !p.udp.Load() || p.frozen.Load() {
			continue
		}
		out := back[from]
		if out == nil {
			if out, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(p.to)); err != nil {
				continue
			}
			back[from] = out
			p.keep(out)
			running.Go(func() { p.answers(out, pc, from) })
		}
		_, _ = out.Write(buf[:n]) // a lost datagram is a lost datagram
	}
}

func (p *proxy) answers(out, pc *net.UDPConn, to netip.AddrPort) {
	buf := make([]byte, 64<<10)
	for {
		n, err := out.Read(buf)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			return
		}
		if err == nil && p.udp.Load() && !p.frozen.Load() {
			_, _ = pc.WriteToUDPAddrPort(buf[:n], to)
		}
	}
}

// quick is a clockwork for tests: everything ten times sooner or so.
var quick = Timing{
	Beat: 400 * time.Millisecond, Dead: 1600 * time.Millisecond, Grace: 50 * time.Millisecond,
	Upgrade: 20 * time.Millisecond, Dial: time.Second,
}
