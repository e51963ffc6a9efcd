package discovery

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Implementation constants of multicast DNS.
const (
	// At the start, and whenever the network changed, a member asks and
	// announces itself a few times, in case a packet or a switch port was not
	// ready yet; then rarely, as a member must be heard only once.
	firstRepeat = 1 * time.Second
	lastRepeat  = 5 * time.Minute
	repeatTimes = 3
	// An answer is delayed by a random part of this, so that a room full of
	// members does not answer at the same instant (RFC 6762 section 6).
	answerDelay = 80 * time.Millisecond
	// One interface answers at most once in this time (RFC 6762 section 6).
	answerPause = time.Second
	rescan      = 5 * time.Second
)

// MDNS finds the members in the local network. All fields but Log are required.
type MDNS struct {
	Service string // see ServiceName
	Self    identity.ID
	// Addrs are where this node listens, now.
	Addrs func() []netip.AddrPort
	// Usable says whether an address may be underlay; interfaces without one
	// that may be are left alone.
	Usable func(netip.Addr) bool
	// Found is called for every announcement, also repeated ones, from several goroutines.
	Found func(identity.ID, []netip.AddrPort)
	Log   *slog.Logger
}

var (
	group4 = netip.MustParseAddrPort("224.0.0.251:5353")
	group6 = netip.MustParseAddrPort("[ff02::fb]:5353")
)

// socketKey is one interface and address family.
type socketKey struct {
	name  string
	index int
	group netip.AddrPort
}

// socket is the multicast socket of one of them.
type socket struct {
	key  socketKey
	conn *net.UDPConn
	life context.Context // ends with the socket
	stop context.CancelFunc

	mu     sync.Mutex
	silent time.Time // no answer before
}

// Run announces and listens until ctx ends. Interfaces come and go meanwhile;
// what cannot be opened is tried again.
func (m *MDNS) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	open := make(map[socketKey]*socket)
	defer func() {
		for _, s := range open {
			s.stop()
		}
	}()
	tick := time.NewTicker(rescan)
	defer tick.Stop()
	var before []netip.AddrPort
	for {
		now := m.Addrs()
		changed := !slices.Equal(before, now)
		before = now
		m.reopen(ctx, open, changed, &running)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// reopen opens the sockets of new interfaces and closes those of gone ones.
// All are renewed when this node's addresses changed: a link that got its
// address late is announced on at once.
func (m *MDNS) reopen(ctx context.Context, open map[socketKey]*socket, renew bool, running *sync.WaitGroup) {
	want := m.interfaces()
	for key, s := range open {
		if _, ok := want[key]; !ok || renew || s.life.Err() != nil {
			s.stop()
			delete(open, key)
		}
	}
	for key, ifi := range want {
		if open[key] != nil {
			continue
		}
		conn, err := openMulticast(ifi, key.group)
		if err != nil {
			m.logger().Debug("no multicast on interface", "addr", key.name, "err", err)
			continue
		}
		s := &socket{key: key, conn: conn}
		s.life, s.stop = context.WithCancel(ctx)
		open[key] = s
		context.AfterFunc(s.life, func() { _ = conn.Close() })
		running.Go(func() { m.listen(s, running) })
		running.Go(func() { m.announce(s) })
	}
}

// interfaces returns the sockets to have: for each interface that is up, can
// multicast and has an address that may be underlay.
func (m *MDNS) interfaces() map[socketKey]*net.Interface {
	out := make(map[socketKey]*net.Interface)
	all, err := net.Interfaces()
	if err != nil {
		m.logger().Debug("cannot list interfaces", "err", err)
	}
	for _, ifi := range all {
		if ifi.Flags&(net.FlagUp|net.FlagMulticast) != net.FlagUp|net.FlagMulticast || ifi.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := ifi.Addrs()
		if err != nil {
			continue // it is just going away
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(n.IP)
			if ip = ip.Unmap(); !ok || !m.Usable(ip) || !ip.IsGlobalUnicast() {
				continue
			}
			group := group4
			if ip.Is6() {
				group = group6
			}
			out[socketKey{ifi.Name, ifi.Index, group}] = &ifi
		}
	}
	return out
}

// announce asks who is there and says who we are, often first, then rarely.
func (m *MDNS) announce(s *socket) {
	ask, err := query(m.Service)
	if err != nil {
		m.logger().Error("cannot ask on the local network", "err", err)
		return
	}
	wait := firstRepeat
	for round := 1; ; round++ {
		m.say(s)
		s.mayAnswer() // our own question needs no answer of ours
		m.send(s, ask)
		if round > repeatTimes {
			wait = lastRepeat*3/4 + time.Duration(rand.Int64N(int64(lastRepeat/2)))
		}
		if !pause(s.life, wait) {
			return
		}
		wait *= 3
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// say announces this node on a socket.
func (m *MDNS) say(s *socket) {
	a := announcement{ID: m.Self, Addrs: m.Addrs()}
	if len(a.Addrs) == 0 {
		return
	}
	a.Port = a.Addrs[0].Port()
	msg, err := response(m.Service, a)
	if err != nil {
		m.logger().Error("cannot announce on the local network", "err", err)
		return
	}
	m.send(s, msg)
}

func (m *MDNS) send(s *socket, msg []byte) {
	if _, err := s.conn.WriteToUDPAddrPort(msg, s.destination()); err != nil && !errors.Is(err, net.ErrClosed) {
		m.logger().Debug("cannot multicast", "addr", s.key.name, "err", err)
	}
}

func (s *socket) destination() netip.AddrPort {
	if s.key.group.Addr().Is6() {
		return netip.AddrPortFrom(s.key.group.Addr().WithZone(s.key.name), s.key.group.Port())
	}
	return s.key.group
}

// listen takes in what others say on a socket.
func (m *MDNS) listen(s *socket, running *sync.WaitGroup) {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			// The interface is gone, or we stop: the next look around decides.
			s.stop()
			return
		}
		asks, found, err := parse(m.Service, buf[:n])
		if err != nil {
			continue
		}
		if asks && s.mayAnswer() {
			running.Go(func() {
				if pause(s.life, time.Duration(rand.Int64N(int64(answerDelay)))) {
					m.say(s)
				}
			})
		}
		for _, a := range found {
			m.heard(a, from.Addr())
		}
	}
}

// mayAnswer reports whether the pause since the last answer is over.
func (s *socket) mayAnswer() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Before(s.silent) {
		return false
	}
	s.silent = now.Add(answerPause)
	return true
}

// heard passes an announcement on. The address that it came from is the best
// there is: it works in this direction, on this link.
func (m *MDNS) heard(a announcement, from netip.Addr) {
	if a.ID == m.Self {
		return
	}
	from = from.Unmap()
	var addrs []netip.AddrPort
	listens := func(addr netip.AddrPort) bool { return addr.Addr().Unmap().Is4() == from.Is4() }
	if a.Port != 0 && !from.IsLinkLocalUnicast() && slices.ContainsFunc(a.Addrs, listens) {
		addrs = append(addrs, netip.AddrPortFrom(from, a.Port))
	}
	for _, addr := range a.Addrs {
		if m.Usable(addr.Addr()) && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) > 0 {
		m.Found(a.ID, addrs)
	}
}

func (m *MDNS) logger() *slog.Logger {
	if m.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return m.Log
}
