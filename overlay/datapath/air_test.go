package datapath

import (
	"bytes"
	"context"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/path"
	"github.com/kairos-io/kairos/overlay/secret"
	"github.com/kairos-io/kairos/overlay/session"
)

// air carries datagrams between two members, one goroutine to each.
type air struct {
	*network
	arrive [2]chan flight
	done   chan struct{}

	mu      sync.Mutex
	place   [2]netip.AddrPort // where each of them is
	inside  netip.Addr        // of the first one, behind a translator; not valid: there is none
	forge   func(flight) flight
	deaf    int // hears nothing from a kernel's choice of the address, if isDeaf
	isDeaf  bool
	strays  map[netip.AddrPort][]int // sizes of what went where nobody is
	cut     bool                     // everything is lost
	largest int                      // larger ones are lost; 0: none
	refuse  int                      // larger ones are refused, as the kernel does; 0: none
	twice   bool                     // everything comes twice
	seen    [][]byte
	shaken  int // handshakes
}

// flight is datagrams on their way.
type flight struct {
	by      path.Path // as the receiver sees it
	packets [][]byte
}

// newAir makes two members that have streams and datagrams, and starts them.
func newAir(t *testing.T, more ...func(*Config)) *air {
	a := &air{network: newNetwork(t, 0), done: make(chan struct{})}
	for i := range a.arrive {
		a.arrive[i] = make(chan flight, 1024)
		a.place[i] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 4171)
	}
	a.add(2, func(m *member, c *Config) {
		for _, change := range more {
			change(c)
		}
		c.Network, c.Suites = airOf{a, m}, session.AES256GCM
	})
	for i, m := range a.members {
		a.running.Go(func() {
			for {
				select {
				case f := <-a.arrive[i]:
					m.dp.HandleDatagrams(f.by, f.packets)
				case <-a.done:
					return
				}
			}
		})
		a.connect(m)
	}
	a.start()
	t.Cleanup(func() { close(a.done) })
	return a
}

// connect tells a member where the other one is.
func (a *air) connect(m *member) {
	to := 2 - int(m.id[0]) // the other one's index
	a.mu.Lock()
	remote := a.place[to]
	a.mu.Unlock()
	m.dp.Candidates(a.members[to].id, path.Path{Socket: 1, Remote: remote})
}

// again ends a member's last connection to the other, and makes one.
func (a *air) again(m *member) {
	to := a.members[2-int(m.id[0])].id
	m.dp.PeerDown(to)
	m.dp.PeerUp(to)
	a.connect(m)
}

// set changes what the air does.
func (a *air) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

func (a *air) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.seen)
}

// airOf is the air as one member has it.
type airOf struct {
	*air
	m *member
}

// memSession is a memStream whose ends share a secret.
type memSession struct{ Stream }

func (memSession) Secret() secret.Key { return secret.NewKey([32]byte{1}) }

// OpenSession implements Network.
func (o airOf) OpenSession(_ context.Context, id identity.ID) (SessionStream, error) {
	near, far := pipe()
	o.set(func() { o.shaken++ })
	o.running.Go(func() { o.members[id[0]-1].dp.HandleSession(o.m.id, memSession{far}) })
	return memSession{near}, nil
}

// Elsewhere implements Network.
func (airOf) Elsewhere(identity.ID) []path.Path { return nil }

// Sender implements Network.
func (o airOf) Sender(p path.Path) (Sender, error) {
	return airSender{o.air, int(o.m.id[0] - 1), p}, nil
}

// airSender sends from a member by a path.
type airSender struct {
	*air
	from int
	path path.Path
}

// Send implements Sender.
func (s airSender) Send(packets [][]byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path.Local.IsValid() && s.path.Local != s.local(s.from) {
		return 0, syscall.EINVAL // the address is gone
	}
	var through [][]byte
	for i, p := range packets {
		if s.refuse > 0 && len(p) > s.refuse {
			s.pass(through)
			return i, syscall.EMSGSIZE
		}
		if s.cut || s.largest > 0 && len(p) > s.largest {
			continue
		}
		s.seen = append(s.seen, bytes.Clone(p))
		through = append(through, bytes.Clone(p))
		if s.twice {
			through = append(through, bytes.Clone(p))
		}
	}
	s.pass(through)
	return len(packets), nil
}

// Offer implements Sender.
func (s airSender) Offer(packet []byte) error {
	_, err := s.Send([][]byte{packet})
	return err
}

// local is the address of a member as it knows it. The caller holds mu.
func (a *air) local(i int) netip.Addr {
	if i == 0 && a.inside.IsValid() {
		return a.inside
	}
	return a.place[i].Addr()
}

func (s airSender) pass(packets [][]byte) {
	to := 1 - s.from
	if len(packets) == 0 || s.isDeaf && s.deaf == to && !s.path.Local.IsValid() {
		return
	}
	if s.path.Remote != s.place[to] { // nobody is there any more
		if s.strays == nil {
			s.strays = map[netip.AddrPort][]int{}
		}
		for _, p := range packets {
			s.strays[s.path.Remote] = append(s.strays[s.path.Remote], len(p))
		}
		return
	}
	f := flight{path.Path{Socket: 1, Local: s.local(to), Remote: s.place[s.from]}, packets}
	if to == 0 && s.forge != nil {
		f = s.forge(f)
	}
	select {
	case s.arrive[to] <- f:
	case <-s.done:
	}
}

// from is the path by which datagrams of the other one come to m.
func (a *air) from(m *member) path.Path {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := int(m.id[0] - 1)
	return path.Path{Socket: 1, Local: a.local(i), Remote: a.place[1-i]}
}

func (m *member) kind(to *member) string { return m.dp.Stats().Peers[to.id].Path.Kind }

// talk is the number of packets that tests send to have traffic, and do not count.
const talk = 1 << 20

// chat sends such a packet.
func (m *member) chat(to *member) { m.dev.Inject(packet(m.v4, to.v4, talk, 100)) }

// wantKind waits until packets between the two, of which there are some all the
// time, take that way in both directions.
func (a *air) wantKind(kind string) {
	a.t.Helper()
	one, two := a.members[0], a.members[1]
	for range 1000 {
		if one.kind(two) == kind && two.kind(one) == kind {
			return
		}
		one.chat(two)
		two.chat(one)
		time.Sleep(100 * time.Millisecond) // of the bubble's time
	}
	a.t.Fatalf("packets go by %s and %s, want %s", one.kind(two), two.kind(one), kind)
}

// exchange sends packets both ways and checks that every one of them arrives.
func (a *air) exchange(count, size int) {
	a.t.Helper()
	one, two := a.members[0], a.members[1]
	want := func(m *member, n int) {
		a.t.Helper()
		got := number(m.next())
		for got == talk {
			got = number(m.next())
		}
		if got != n {
			a.t.Fatalf("packet %d arrives, want %d", got, n)
		}
	}
	for n := range count {
		one.dev.Inject(packet(one.v4, two.v4, n, size))
		want(two, n)
		two.dev.Inject(packet(two.v6, one.v6, n, size))
		want(one, n)
	}
}
