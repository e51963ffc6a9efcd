package mesh

import (
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/underlay"
)

// A connected peer that does not answer when the network changed is dialled at once,
// over whatever is known of it, and traffic goes on within a second.
func TestPeerIsLookedForWhenTheNetworkChanged(t *testing.T) {
	for _, via := range transports {
		t.Run(via.String(), func(t *testing.T) {
			soon(t, "traffic goes on after the network changed", time.Second, func() time.Duration { return changeNetwork(t, via) })
		})
	}
}

// changeNetwork freezes the path between two nodes and tells one that its network
// changed. It returns how long traffic stands still.
func changeNetwork(t *testing.T, via underlay.Transport) time.Duration {
	keys := testKeys(t)
	b := start(t, Config{Keys: keys, NoQUIC: via == underlay.TCP})
	b.Handle("/echo/1", echoHandler(t))
	p := newProxy(t, b.under.Bound()[0])
	a := start(t, Config{Keys: keys})
	events, cancel := a.Events()
	defer cancel()
	a.Learn(b.ID(), []netip.AddrPort{p.addr})
	await(t, events, PeerUp, b.ID())
	a.Learn(b.ID(), append(b.Underlay(), p.addr))
	echo(t, a, b.ID())
	first := a.best(b.ID())

	p.frozen.Store(true)
	begin := time.Now()
	a.probeAll()
	a.networkChanged(a.Underlay(), true)
	until(t, "another connection", func() bool { c := a.best(b.ID()); return c != nil && c != first })
	echo(t, a, b.ID())
	took := time.Since(begin)
	until(t, "it goes another way", func() bool { c := a.best(b.ID()); return c != nil && c.raw.Remote() != p.addr })
	return took
}

// A change of the network leaves those alone who answer.
func TestNetworkChangeLeavesPeersAlone(t *testing.T) {
	a, b, ea, _ := pair(t, nil)
	until(t, "the answers come in time", func() bool { // unless the machine is busy
		before, dials := a.best(b.ID()), a.Stats().Dials
		for range 5 {
			a.probeAll()
			a.networkChanged(a.Underlay(), true)
		}
		seen := count(ea, b.ID(), time.Second)
		if seen[PeerDown] > 0 {
			t.Errorf("the peer saw %v", seen)
		}
		return seen[PathChanged] == 0 && a.best(b.ID()) == before && a.Stats().Dials == dials
	})
}

// An address that was doubted and answers again is used again.
func TestDoubtGoes(t *testing.T) {
	keys, timing := testKeys(t), quick
	timing.Dead = 10 * time.Second
	b := start(t, Config{Keys: keys, Timing: timing})
	p := newProxy(t, b.under.Bound()[0])
	a := start(t, Config{Keys: keys, Timing: timing})
	events, cancel := a.Events()
	defer cancel()
	a.Learn(b.ID(), []netip.AddrPort{p.addr})
	await(t, events, PeerUp, b.ID())
	p.frozen.Store(true)
	a.probeAll()
	doubted := func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		p := a.peers[b.ID()]
		return p != nil && p.best.doubted
	}
	until(t, "it is doubted", doubted)
	p.frozen.Store(false)
	until(t, "it is trusted, or there is another connection", func() bool { return a.Connected(b.ID()) && !doubted() })
}

// What is said on the local network or in a record leads neither to services of this
// machine nor, by the zone of an IPv6 address, to anything else.
func TestNothingSmuggled(t *testing.T) {
	m := startAs(t, Config{Keys: testKeys(t)}) // as outside of tests: loopback is not dialled
	var addrs []netip.AddrPort
	for _, text := range []string{"[fe80::1%lo/ip6/::1/tcp/22]:4171", "[::1]:22", "127.0.0.1:22", "[fe80::1%lo]:4171"} {
		addrs = append(addrs, netip.MustParseAddrPort(text))
	}
	for i := range 1000 {
		m.found(identity.ID{1, byte(i), byte(i >> 8)}, addrs)
	}
	if n := m.Stats().Members; n != 0 {
		t.Errorf("%d rumours without an address are kept", n)
	}
	m.Learn(testKey(t).ID(), addrs)
	m.mu.Lock()
	missing := m.sched.Missing(m.now(), 9)
	m.mu.Unlock()
	if len(missing) != 1 || missing[0].Addresses != 0 || m.Stats().Dials != 0 {
		t.Errorf("dials %+v", missing)
	}
}

// Whatever stands before it in a record, the address that works is reached: a laptop
// with the bridges of eight container networks.
func TestReachableAddressComesLast(t *testing.T) {
	keys := testKeys(t)
	a, b := start(t, Config{Keys: keys}), start(t, Config{Keys: keys})
	var addrs []netip.AddrPort
	for i := range 12 {
		addrs = append(addrs, netip.MustParseAddrPort(fmt.Sprintf("127.1.%d.1:9", 17+i)))
	}
	begin := time.Now()
	a.Learn(b.ID(), append(addrs, b.Underlay()...))
	until(t, "they are connected", func() bool { return a.Connected(b.ID()) })
	t.Logf("RESULT the thirteenth address is reached after %s", time.Since(begin))
}

// The mesh says where the packets of a connection go, and from where: on a machine with
// several addresses others than the peer's expect do not get through.
func TestSourcesSayTheirAddresses(t *testing.T) {
	keys := testKeys(t)
	hub := start(t, Config{Keys: keys, Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0")}})
	port := hub.under.Bound()[0].Port()
	for i := range 3 {
		b := start(t, Config{Keys: keys, NoTCP: true}) // whose connections have no path
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(2 + i)}), port)
		b.Learn(hub.ID(), []netip.AddrPort{at})
		until(t, "connected", func() bool { return b.Connected(hub.ID()) && hub.Connected(b.ID()) })
		there, here := b.Sources(hub.ID()), hub.Sources(b.ID())
		if len(there) != 1 || there[0].Remote != at || there[0].Socket == 0 {
			t.Errorf("the dialler's paths: %+v", there)
		}
		if len(here) != 1 || here[0].Local != at.Addr() || here[0].Remote != b.under.Bound()[0] {
			t.Errorf("the hub's paths: %+v, want from %s", here, at)
		}
	}
	if got := hub.Sources(identity.ID{1}); got != nil {
		t.Errorf("paths to nobody: %v", got)
	}
}

func echoHandler(t testing.TB) func(identity.ID, Stream) {
	return func(_ identity.ID, s Stream) {
		defer func() { _ = s.Close() }()
		if _, err := io.Copy(s, s); err != nil {
			t.Log(err) // the connection was replaced
		}
	}
}
