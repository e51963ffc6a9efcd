package discovery

import (
	"context"
	crand "crypto/rand"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/secret"
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
	// A network that changes all the time is announced on once in this time.
	changePause = time.Second
)

// MDNS finds the members in the local network. Keys, Self, Addrs, Usable and Found are
// required.
type MDNS struct {
	// Keys are the network's for announcements, the newest first (token.Find.MDNS of
	// each door). This node announces itself under each, and hears all.
	Keys []secret.Key
	Self identity.ID
	// Addrs are where this node listens, now.
	Addrs func() []netip.AddrPort
	// Usable says whether an address may be underlay; interfaces without one
	// that may be are left alone.
	Usable func(netip.Addr) bool
	// Found is called for every announcement, also repeated ones, from several
	// goroutines. The addresses are one machine's each, of other machines, without zone;
	// the one that the announcement came from is the first. There are at most 16.
	Found func(identity.ID, []netip.AddrPort)
	// Changes, when set, tells of changes of the network or a wake from sleep: this
	// node then looks around and announces itself at once.
	Changes <-chan struct{}
	// Now is the machine's clock, right or wrong; default time.Now.
	Now func() time.Time
	Log *slog.Logger

	ear *ear // since Run
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
	near []netip.Addr // of the interface
	conn *net.UDPConn
	life context.Context // ends with the socket
	stop context.CancelFunc

	mu     sync.Mutex
	silent time.Time // no answer before
}

// Run announces and listens until ctx ends. Interfaces come and go meanwhile;
// what cannot be opened is tried again.
func (m *MDNS) Run(ctx context.Context) {
	now := m.Now
	if now == nil {
		now = time.Now
	}
	var err error
	if m.ear, err = newEar(m.Self, m.Keys, now, crand.Reader); err != nil {
		m.logger().Error("cannot look for members on the local network", "err", err)
		return
	}
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
	changes, told := m.Changes, false
	var again <-chan time.Time
	for {
		now := m.Addrs()
		m.reopen(ctx, open, told || !slices.Equal(before, now), &running)
		before, told = now, false
		select {
		case <-tick.C:
		case _, told = <-changes: // false when whoever told is gone
			changes = nil
			if told {
				again = time.After(changePause)
			}
		case <-again:
			changes, again = m.Changes, nil
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
	for key, at := range want {
		if open[key] != nil {
			continue
		}
		conn, err := openMulticast(at.ifi, key.group)
		if err != nil {
			m.logger().Debug("no multicast on interface", "addr", key.name, "err", err)
			continue
		}
		s := &socket{key: key, near: at.addrs, conn: conn}
		s.life, s.stop = context.WithCancel(ctx)
		open[key] = s
		context.AfterFunc(s.life, func() { _ = conn.Close() })
		running.Go(func() { m.listen(s, running) })
		running.Go(func() { m.announce(s) })
	}
}

// place is an interface with its addresses of one family.
type place struct {
	ifi   *net.Interface
	addrs []netip.Addr
}

// interfaces returns the sockets to have: for each interface that is up, can
// multicast and has an address that may be underlay.
func (m *MDNS) interfaces() map[socketKey]place {
	out := make(map[socketKey]place)
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
			key := socketKey{ifi.Name, ifi.Index, group}
			out[key] = place{&ifi, append(out[key].addrs, ip)}
		}
	}
	return out
}

// announce asks who is there and says who we are, often first, then rarely.
func (m *MDNS) announce(s *socket) {
	wait := firstRepeat
	for round := 1; ; round++ {
		m.say(s)
		s.mayAnswer() // our own question needs no answer of ours
		m.ask(s)
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

// say announces this node on a socket, with what the neighbours of that interface reach
// it at before all else.
func (m *MDNS) say(s *socket) {
	addrs := m.Addrs()
	if len(addrs) == 0 {
		return
	}
	msgs, err := m.ear.say(nearFirst(addrs, s.near))
	if err != nil {
		m.logger().Error("cannot announce on the local network", "err", err)
	}
	for _, msg := range msgs {
		m.send(s, msg)
	}
}

// ask asks who is there.
func (m *MDNS) ask(s *socket) {
	msg, err := query(crand.Reader)
	if err != nil {
		m.logger().Error("cannot ask on the local network", "err", err)
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
		asks, sealed, err := parse(buf[:n])
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
		for _, one := range sealed {
			m.heard(one, from.Addr())
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

// heard passes an announcement on. The address that it came from is the best there is: it
// works in this direction, on this link. The member must have named it itself, or else
// whoever says again what it said would be called.
func (m *MDNS) heard(sealed []byte, from netip.Addr) {
	a, ok := m.ear.believe(sealed, from)
	if !ok {
		return
	}
	addrs := slices.DeleteFunc(nearFirst(a.Addrs, []netip.Addr{from.Unmap().WithZone("")}), func(addr netip.AddrPort) bool {
		return !m.Usable(addr.Addr())
	})
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
