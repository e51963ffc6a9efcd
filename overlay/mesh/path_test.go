package mesh

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/discovery"
	"github.com/kairos-io/kairos/overlay/identity"
)

// A peer configured as host:port, of which nothing else is known, is reached
// over TCP where UDP is blocked, and moves to QUIC when it is not any more.
func TestStaticPeer(t *testing.T) {
	for _, tc := range []struct {
		name string
		peer func(addr netip.AddrPort, id identity.ID) string
	}{
		{"host:port", func(a netip.AddrPort, _ identity.ID) string { return a.String() }},
		{"name:port", func(a netip.AddrPort, _ identity.ID) string {
			return strings.Replace(a.String(), "127.0.0.1", "localhost", 1)
		}},
		{"multiaddr", func(a netip.AddrPort, _ identity.ID) string {
			at, err := multiaddr(a, tcpName)
			if err != nil {
				t.Fatal(err)
			}
			return at.String()
		}},
		{"multiaddr with ID", func(a netip.AddrPort, id identity.ID) string {
			at, err := multiaddr(a, quicName)
			if err != nil {
				t.Fatal(err)
			}
			pid, err := peerID(id)
			if err != nil {
				t.Fatal(err)
			}
			return at.String() + "/p2p/" + pid.String()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keys := testKeys(t)
			b := start(t, Config{Keys: keys, Timing: quick})
			p := newProxy(t, b.under.bound[0])
			p.udp.Store(false)
			timing := quick
			timing.Dial = 200 * time.Millisecond
			a := start(t, Config{Keys: keys, Peers: []string{tc.peer(p.addr, b.ID())}, Timing: timing})
			events, cancel := a.Events()
			defer cancel()
			await(t, events, PeerUp, b.ID())
			if got := a.Peers()[0]; got.Transport != tcpName || got.Endpoint.Port() != p.addr.Port() {
				t.Errorf("connected over %s to %s, want TCP to %s", got.Transport, got.Remote, p.addr)
			}
			p.udp.Store(true)
			await(t, events, PathChanged, b.ID())
			if got := a.Peers()[0].Transport; got != quicName {
				t.Errorf("moved to %s, want QUIC", got)
			}
			until(t, "the TCP connection is closed", func() bool { return conns(a, b.ID()) == 1 && conns(b, a.ID()) == 1 })
			until(t, "the other end follows", func() bool {
				c := b.best(a.ID())
				return c != nil && c.transport == quicName
			})
		})
	}
}

// A QUIC connection that ends while the TCP one before it still stands is
// followed by another: the mesh does not stay with what is left.
func TestUpgradeAgain(t *testing.T) {
	keys, timing := testKeys(t), quick
	timing.Dial, timing.Grace = 200*time.Millisecond, time.Hour
	b := start(t, Config{Keys: keys, Timing: timing})
	p := newProxy(t, b.under.bound[0])
	p.udp.Store(false)
	a := start(t, Config{Keys: keys, Peers: []string{p.addr.String()}, Timing: timing})
	events, cancel := a.Events()
	defer cancel()
	await(t, events, PeerUp, b.ID())
	p.udp.Store(true)
	await(t, events, PathChanged, b.ID())
	a.mu.Lock()
	known := a.targets[b.ID()]
	a.mu.Unlock()
	for range 5 { // also when the mesh has turned to nothing else meanwhile
		until(t, "the mesh has settled", func() bool { return len(known.wake) == 0 })
		last := a.best(b.ID())
		last.close(errDead)
		until(t, "QUIC again", func() bool {
			c := a.best(b.ID())
			return c != nil && c != last && c.transport == quicName
		})
	}
}

// conns counts the connections to a peer.
func conns(m *Mesh, id identity.ID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[id]; p != nil {
		return len(p.conns)
	}
	return 0
}

// The defaults keep the promise: whoever falls silent is gone within 15 s.
func TestDefaultTiming(t *testing.T) {
	d := Timing{}.withDefaults()
	if d.Dead > 15*time.Second || d.Beat >= d.Dead || d.Dead-d.Beat < 3*time.Second {
		t.Errorf("beat %s, dead %s", d.Beat, d.Dead)
	}
}

// A peer that falls silent without a word is noticed on both sides, and is
// connected again by itself when it is back.
func TestSilenceIsNoticed(t *testing.T) {
	for _, via := range transports {
		t.Run(via, func(t *testing.T) {
			keys := testKeys(t)
			b := start(t, Config{Keys: keys, Timing: quick})
			p := newProxy(t, b.under.bound[0])
			p.udp.Store(via == quicName)
			a := start(t, Config{Keys: keys, Peers: []string{p.addr.String()}, Timing: quick, NoQUIC: via == tcpName})
			ea, cancelA := a.Events()
			defer cancelA()
			eb, cancelB := b.Events()
			defer cancelB()
			await(t, ea, PeerUp, b.ID())
			await(t, eb, PeerUp, a.ID())
			if got := a.Peers()[0].Transport; got != via {
				t.Fatalf("connected over %s, want %s", got, via)
			}
			idle := time.NewTimer(2 * quick.Dead) // idle, but alive: beats keep it
			select {
			case e := <-ea:
				t.Fatalf("%s while all was well", e.Kind)
			case <-idle.C:
			}
			p.frozen.Store(true)
			begin := time.Now()
			await(t, ea, PeerDown, b.ID())
			await(t, eb, PeerDown, a.ID())
			if took := time.Since(begin); took > 3*quick.Dead {
				t.Errorf("noticed after %s, want about %s", took, quick.Dead)
			}
			if a.Stats().Lost == 0 {
				t.Error("the loss is not counted")
			}
			p.frozen.Store(false)
			await(t, ea, PeerUp, b.ID())
			await(t, eb, PeerUp, a.ID())
		})
	}
}

// Both sides of an idle connection know the round trip.
func TestRTT(t *testing.T) {
	a, b, _, _ := pair(t, func(a, b *Config) { a.Timing, b.Timing = quick, quick })
	for _, m := range []*Mesh{a, b} {
		if rtt := m.Peers()[0].RTT; rtt <= 0 || rtt > patience {
			t.Errorf("round trip of %s from the start", rtt)
		}
	}
	a.best(b.ID()).rtt.Store(0)
	b.best(a.ID()).rtt.Store(0)
	for _, m := range []*Mesh{a, b} {
		until(t, "the round trip is measured again", func() bool { return m.Peers()[0].RTT > 0 })
	}
}

// A restarted peer replaces its earlier run at once, even when that one ended
// without a word and its connection looks alive.
func TestRestartReplaces(t *testing.T) {
	keys, key := testKeys(t), testKey(t)
	a := start(t, Config{Keys: keys})
	first := start(t, Config{Keys: keys, Key: key})
	p := newProxy(t, first.under.bound[0])
	a.Learn(key.ID(), []netip.AddrPort{p.addr})
	events, cancel := a.Events()
	defer cancel()
	await(t, events, PeerUp, key.ID())
	p.frozen.Store(true)

	begin := time.Now()
	second := start(t, Config{Keys: keys, Key: key, Peers: texts(a.Underlay())})
	await(t, events, PeerDown, key.ID())
	await(t, events, PeerUp, key.ID())
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("replaced after %s", took)
	}
	second.Handle("/echo/1", func(_ identity.ID, s Stream) { _ = s.Close() })
	s, err := a.Open(t.Context(), key.ID(), "/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "deadline") {
		t.Errorf("the stream did not reach the second run: %v", err)
	}
}

// Nodes that dial each other at the same time end with one connection, the
// same on both sides, that works.
func TestSimultaneousDials(t *testing.T) {
	for range 10 {
		keys := testKeys(t)
		timing := quick
		timing.Deference = time.Nanosecond
		a, b := start(t, Config{Keys: keys, Timing: timing}), start(t, Config{Keys: keys, Timing: timing})
		ready := make(chan struct{})
		for _, dir := range [][2]*Mesh{{a, b}, {b, a}} {
			go func() {
				<-ready
				dir[0].Learn(dir[1].ID(), dir[1].Underlay())
			}()
		}
		close(ready)
		until(t, "both have one connection", func() bool { return conns(a, b.ID()) == 1 && conns(b, a.ID()) == 1 })
		ca, cb := a.best(b.ID()), b.best(a.ID())
		if ca == nil || cb == nil || ca.adm.Session != cb.adm.Session {
			until(t, "both have the same connection", func() bool {
				ca, cb := a.best(b.ID()), b.best(a.ID())
				return ca != nil && cb != nil && ca.adm.Session == cb.adm.Session
			})
		}
	}
}

// Overlay addresses are neither announced nor dialled nor accepted.
func TestExclude(t *testing.T) {
	keys := testKeys(t)
	everything := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	shut := start(t, Config{Keys: keys, Exclude: everything})
	open := start(t, Config{Keys: keys})
	if got := shut.Underlay(); len(got) != 0 {
		t.Errorf("announces %v", got)
	}
	shut.Learn(open.ID(), open.Underlay())
	if got := shut.dialable([]netip.AddrPort{open.under.bound[0]}); len(got) != 0 {
		t.Errorf("would dial %v", got)
	}
	for _, via := range transports {
		a := attempt{want: shut.ID(), addr: shut.under.bound[0], via: via}
		if c, err := open.dial(t.Context(), a); err == nil {
			c.close(errShutdown)
			t.Errorf("was accepted over %s", via)
		}
	}
	if shut.Stats().Dials != 0 {
		t.Error("dialled")
	}
}

func TestDialable(t *testing.T) {
	m := &Mesh{exclude: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("fd00:1::/64")}}
	for _, tc := range []struct {
		addr string
		want bool
	}{
		{"192.0.2.1:4171", true},
		{"10.42.1.1:4171", false},
		{"[::ffff:10.42.1.1]:4171", false},
		{"[fd00:1::5]:4171", false},
		{"[fd00:1::5%eth0]:4171", false},
		{"[fd00:2::5]:4171", true},
		{"0.0.0.0:4171", false},
		{"[::]:4171", false},
		{"192.0.2.1:0", false},
		{"224.0.0.251:4171", false},
		{"127.0.0.1:4171", true},
	} {
		t.Run(tc.addr, func(t *testing.T) {
			if got := len(m.dialable([]netip.AddrPort{netip.MustParseAddrPort(tc.addr)})) == 1; got != tc.want {
				t.Errorf("dialable %v, want %v", got, tc.want)
			}
		})
	}
}

// A taken port is told as such, whoever has it.
func TestPortTaken(t *testing.T) {
	first := start(t, Config{Keys: testKeys(t)})
	cfg := Config{Key: testKey(t), Keys: testKeys(t), Listen: []netip.AddrPort{first.under.bound[0]}}
	if _, err := New(t.Context(), cfg); !errors.Is(err, ErrPortTaken) {
		t.Errorf("error %v, want ErrPortTaken", err)
	}
}

// What others say never leads to this machine's own services.
func TestNoLoopbackForOthers(t *testing.T) {
	m := &Mesh{log: slog.New(slog.DiscardHandler)}
	local := netip.MustParseAddrPort("127.0.0.1:8080")
	far := netip.MustParseAddrPort("192.0.2.1:4171")
	tg := &target{record: []netip.AddrPort{local, far}, heard: []netip.AddrPort{netip.MustParseAddrPort("[::1]:1")}}
	if got := m.addrs(t.Context(), tg); len(got) != 1 || got[0] != far {
		t.Errorf("would dial %v", got)
	}
	tg.hosts = []discovery.Peer{{Host: "127.0.0.1", Port: 8080}}
	if got := m.addrs(t.Context(), tg); len(got) != 2 {
		t.Errorf("a configured peer is left out: %v", got)
	}
}
