package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/underlay"
)

// A peer configured as host:port, of which nothing else is known, is reached
// over TCP where UDP is blocked, and moves to QUIC when it is not any more.
func TestStaticPeer(t *testing.T) {
	for _, tc := range []struct {
		name string
		peer func(addr netip.AddrPort, b *Mesh) string
	}{
		{"host:port", func(a netip.AddrPort, _ *Mesh) string { return a.String() }},
		{"name:port", func(a netip.AddrPort, _ *Mesh) string {
			return strings.Replace(a.String(), "127.0.0.1", "localhost", 1)
		}},
		{"multiaddr", func(a netip.AddrPort, _ *Mesh) string {
			return fmt.Sprintf("/ip4/%s/tcp/%d", a.Addr(), a.Port())
		}},
		{"multiaddr with ID", func(a netip.AddrPort, b *Mesh) string {
			pid, _ := door(t, b, underlay.QUIC)
			return fmt.Sprintf("/ip4/%s/udp/%d/quic-v1/p2p/%s", a.Addr(), a.Port(), pid)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keys := testKeys(t)
			b := start(t, Config{Keys: keys, Timing: quick})
			p := newProxy(t, b.under.Bound()[0])
			p.udp.Store(false)
			timing := quick
			timing.Dial = 200 * time.Millisecond
			a := start(t, Config{Keys: keys, Peers: []string{tc.peer(p.addr, b)}, Timing: timing})
			events, cancel := a.Events()
			defer cancel()
			await(t, events, PeerUp, b.ID())
			if got := a.Peers()[0]; got.Transport != "tcp" || got.Remote.Port() != p.addr.Port() {
				t.Errorf("connected over %s to %s, want TCP to %s", got.Transport, got.Remote, p.addr)
			}
			p.udp.Store(true)
			await(t, events, PathChanged, b.ID())
			if got := a.Peers()[0].Transport; got != "quic" {
				t.Errorf("moved to %s, want QUIC", got)
			}
			until(t, "the TCP connection is closed", func() bool { return conns(a, b.ID()) == 1 && conns(b, a.ID()) == 1 })
			until(t, "the other end follows", func() bool {
				c := b.best(a.ID())
				return c != nil && c.raw.Transport() == underlay.QUIC
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
	p := newProxy(t, b.under.Bound()[0])
	p.udp.Store(false)
	a := start(t, Config{Keys: keys, Peers: []string{p.addr.String()}, Timing: timing})
	events, cancel := a.Events()
	defer cancel()
	await(t, events, PeerUp, b.ID())
	p.udp.Store(true)
	await(t, events, PathChanged, b.ID())
	for range 5 {
		last := a.best(b.ID())
		last.close(errDead)
		until(t, "QUIC again", func() bool {
			c := a.best(b.ID())
			return c != nil && c != last && c.raw.Transport() == underlay.QUIC
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
		t.Run(via.String(), func(t *testing.T) {
			keys := testKeys(t)
			b := start(t, Config{Keys: keys, Timing: quick})
			p := newProxy(t, b.under.Bound()[0])
			p.udp.Store(via == underlay.QUIC)
			a := start(t, Config{Keys: keys, Peers: []string{p.addr.String()}, Timing: quick, NoQUIC: via == underlay.TCP})
			ea, cancelA := a.Events()
			defer cancelA()
			eb, cancelB := b.Events()
			defer cancelB()
			await(t, ea, PeerUp, b.ID())
			await(t, eb, PeerUp, a.ID())
			if got := a.Peers()[0].Transport; got != via.String() {
				t.Fatalf("connected over %s, want %s", got, via)
			}
			idle := time.After(2 * quick.Dead) // idle, but alive: beats keep it
			for quiet := false; !quiet; {
				select {
				case e := <-ea:
					if e.Kind == PeerDown {
						t.Fatalf("%s while all was well", e.Kind)
					}
				case <-idle:
					quiet = true
				}
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
	p := newProxy(t, first.under.Bound()[0])
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
	if got := shut.dialable([]netip.AddrPort{open.under.Bound()[0]}); len(got) != 0 {
		t.Errorf("would dial %v", got)
	}
	for _, via := range transports {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		c, err := open.under.Dial(ctx, via, shut.under.Bound()[0], shut.ID())
		cancel()
		if err == nil {
			_ = c.Close(link.ReasonNone)
			t.Errorf("was accepted over %s", via)
		}
	}
	if shut.Stats().Dials != 0 {
		t.Error("dialled")
	}
}

func TestDialable(t *testing.T) {
	m := &Mesh{cfg: Config{Exclude: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("fd00:1::/64")}}}
	for _, tc := range []struct {
		addr             string
		usable, dialable bool // when a person names it, when somebody else does
	}{
		{"192.0.2.1:4171", true, true},
		{"10.42.1.1:4171", false, false},
		{"[::ffff:10.42.1.1]:4171", false, false},
		{"[fd00:1::5]:4171", false, false},
		{"[fd00:1::5%eth0]:4171", false, false},
		{"[fe80::5%eth0]:4171", false, false},
		{"[fe80::1%lo/ip6/::1/tcp/22]:4171", false, false},
		{"[fe80::1%lo/ip4/127.0.0.1/tcp/22/http/ip6zone/lo]:4171", false, false},
		{"[::1%lo]:22", false, false},
		{"[fd00:2::5]:4171", true, true},
		{"0.0.0.0:4171", false, false},
		{"[::]:4171", false, false},
		{"192.0.2.1:0", false, false},
		{"224.0.0.251:4171", false, false},
		// Nobody else sends this node to services of its own machine.
		{"127.0.0.1:4171", true, false},
		{"[::1]:22", true, false},
		{"[::ffff:127.0.0.1]:22", true, false},
	} {
		t.Run(tc.addr, func(t *testing.T) {
			addr := []netip.AddrPort{netip.MustParseAddrPort(tc.addr)}
			if got := len(m.usable(addr)) == 1; got != tc.usable {
				t.Errorf("usable %v, want %v", got, tc.usable)
			}
			if got := len(m.dialable(addr)) == 1; got != tc.dialable {
				t.Errorf("dialable %v, want %v", got, tc.dialable)
			}
		})
	}
}

// A taken port is told as such, whoever has it.
func TestPortTaken(t *testing.T) {
	first := start(t, Config{Keys: testKeys(t)})
	cfg := Config{Key: testKey(t), Keys: testKeys(t), Listen: []netip.AddrPort{first.under.Bound()[0]}}
	if _, err := New(t.Context(), cfg); !errors.Is(err, ErrPortTaken) {
		t.Errorf("error %v, want ErrPortTaken", err)
	}
}
