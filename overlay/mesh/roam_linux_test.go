package mesh

import (
	"net/netip"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/overlaytest/netns"
	"github.com/kairos-io/kairos/overlay/underlay"
)

// Two nodes lose the address that they see each other by. Traffic goes on within a
// second after another one is there, and an address more or less elsewhere disturbs
// nobody.
//
//	node a :port --+-- wifi0 10.1.0.1/24, later nothing
//	node b :port --+-- lte0 nothing, later 10.2.0.1/24
func TestRoaming(t *testing.T) {
	if netns.Outside(t) {
		return
	}
	netns.IP(t, "link set lo up")
	for _, card := range []string{"wifi0", "lte0", "other0"} {
		netns.IP(t, "link add "+card+" type veth peer name "+card+"x")
		netns.IP(t, "link set "+card+"x up")
		netns.IP(t, "link set "+card+" up")
	}
	for _, via := range transports {
		t.Run(via.String(), func(t *testing.T) {
			soon(t, "traffic goes on after a new address works", time.Second, func() time.Duration { return roam(t, via) })
		})
	}
}

// roam takes away the address that two nodes see each other by, and gives the machine
// another one. It returns how long traffic stands still after that.
func roam(t *testing.T, via underlay.Transport) time.Duration {
	netns.IP(t, "addr add 10.1.0.1/24 dev wifi0")
	keys, listen := testKeys(t), []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0")}
	b := start(t, Config{Keys: keys, Listen: listen, NoQUIC: via == underlay.TCP})
	b.Handle("/echo/1", echoHandler(t))
	a := start(t, Config{Keys: keys, Listen: listen, NoQUIC: via == underlay.TCP})
	port := b.under.Bound()[0].Port()
	old, next := netip.AddrPortFrom(netip.MustParseAddr("10.1.0.1"), port), netip.AddrPortFrom(netip.MustParseAddr("10.2.0.1"), port)
	a.Learn(b.ID(), []netip.AddrPort{old, next})
	until(t, "they are connected", func() bool { return a.Connected(b.ID()) && b.Connected(a.ID()) })

	netns.IP(t, "addr add 10.9.0.1/24 dev other0")
	netns.IP(t, "addr del 10.9.0.1/24 dev other0")
	echo(t, a, b.ID())

	netns.IP(t, "addr del 10.1.0.1/24 dev wifi0")
	until(t, "the connection is doubted", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		p := a.peers[b.ID()]
		return p == nil || p.best.doubted
	})
	<-time.After(1500 * time.Millisecond)
	first := a.best(b.ID())
	begin := time.Now()
	netns.IP(t, "addr add 10.2.0.1/24 dev lte0")
	until(t, "another connection", func() bool { c := a.best(b.ID()); return c != nil && c != first })
	echo(t, a, b.ID())
	took := time.Since(begin)
	netns.IP(t, "addr del 10.2.0.1/24 dev lte0")
	return took
}
