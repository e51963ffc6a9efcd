package underlay

import (
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/overlaytest/netns"
)

// The kernel's words for this machine's network: what is told, in what order its
// addresses come, and that they are read anew.
//
//	lan0 (a pair's end, with the default route) ---- lan1, and bridges for containers
func TestMachine(t *testing.T) {
	if netns.Outside(t) {
		return
	}
	netns.IP(t, "link set lo up")
	u := start(t, Config{bounds: bounds{interval: often}})
	steps := []struct {
		what  string
		do    []string
		told  bool
		addrs []netip.Addr
	}{
		{"bridges for containers", []string{
			"link add br0 type bridge", "link set br0 up", "addr add 10.0.0.1/24 dev br0",
			"link add br1 type bridge", "link set br1 up", "addr add 10.1.0.1/24 dev br1",
		}, true, addrs("10.0.0.1", "10.1.0.1", "127.0.0.1", "::1")},
		{"a card", []string{
			"link add lan0 type veth peer name lan1", "link set lan1 up", "link set lan0 up", "addr add 10.77.0.2/24 dev lan0",
		}, true, addrs("10.0.0.1", "10.1.0.1", "10.77.0.2", "127.0.0.1", "::1")},
		{"a default route", []string{"route add default via 10.77.0.1"}, true, addrs("10.77.0.2", "10.0.0.1", "10.1.0.1", "127.0.0.1", "::1")},
		{"an address that is being tried", []string{"addr add fd77::2/64 dev lan0"}, true, addrs("10.77.0.2", "fd77::2", "10.0.0.1", "10.1.0.1", "127.0.0.1", "::1")},
		{"a pod", []string{
			"link add pod0 type veth peer name pod1", "link set pod1 up", "link set pod0 master br0", "link set pod0 up",
		}, false, nil},
		{"the overlay, and a member", []string{
			"tuntap add dev kairos0 mode tun", "link set kairos0 up", "route add 10.200.0.0/16 dev kairos0", "route add 10.201.0.0/24 dev kairos0",
		}, false, nil},
		{"another address", []string{"addr add 10.77.0.3/24 dev lan0"}, true, addrs("10.77.0.2", "10.77.0.3", "fd77::2", "10.0.0.1", "10.1.0.1", "127.0.0.1", "::1")},
		{"a route to another site", []string{"route add 10.99.0.0/16 via 10.77.0.1"}, true, nil},
		{"the card goes down", []string{"link set lan0 down"}, true, nil},
	}
	calmed(t, u)
	for _, s := range steps {
		began := time.Now()
		netns.IP(t, s.do...)
		if !s.told {
			select {
			case <-u.Changes():
				t.Errorf("%s: told as a change", s.what)
			case <-time.After(2 * often):
			}
			continue
		}
		select {
		case <-u.Changes():
			t.Logf("%s: told after %s", s.what, time.Since(began).Round(time.Millisecond))
		case <-time.After(patience):
			t.Fatalf("%s: not told", s.what)
		}
		if s.addrs != nil {
			got, err := u.Addrs()
			if err != nil || !slices.Equal(got, s.addrs) {
				t.Errorf("%s: %v (%v), want %v", s.what, got, err, s.addrs)
			}
		}
		calmed(t, u)
	}
}

// often is between news in these tests.
const often = 200 * time.Millisecond

// calmed waits until changes have been told.
func calmed(t *testing.T, u *Underlay) {
	t.Helper()
	for {
		select {
		case <-u.Changes():
		case <-time.After(2 * often):
			return
		}
	}
}

// A machine without IPv6 does without.
func TestNoIPv6(t *testing.T) {
	if netns.Outside(t) {
		return
	}
	netns.IP(t, "link set lo up")
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	listen := []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0"), netip.MustParseAddrPort("[::]:0")}
	u := start(t, Config{Listen: listen})
	t.Logf("bound %v", u.Bound())
	for _, via := range both {
		c, err := start(t, Config{}).Dial(patient(t), via, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), u.Bound()[0].Port()), u.id())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s from %s", via, c.Local())
	}
}

// A host with two addresses is dialled at one and answers from it, where the kernel
// would take the other one.
func TestLocalAddress(t *testing.T) {
	if netns.Outside(t) {
		return
	}
	netns.IP(t, "link set lo up", "addr add 10.0.0.1/32 dev lo", "addr add 10.0.0.2/32 dev lo")
	b := start(t, Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0")}})
	at := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), b.Bound()[0].Port())
	for _, via := range both {
		c, err := start(t, Config{}).Dial(patient(t), via, at, b.id())
		if err != nil {
			t.Fatal(err)
		}
		far, err := b.Accept(patient(t))
		if err != nil {
			t.Fatal(err)
		}
		if far.Local() != at || c.Remote() != at {
			t.Errorf("over %s: dialled %s, and the other end is %s", via, c.Remote(), far.Local())
		}
	}
}

// One address cannot hold all the connections that there may be, and what it holds in
// silence ends in time.
func TestOneAddressIsBounded(t *testing.T) {
	if netns.Outside(t) {
		return
	}
	netns.IP(t, "link set lo up", "addr add 10.0.0.1/32 dev lo") // loopback itself is not counted
	b := start(t, Config{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:0")}, bounds: bounds{handshake: 2 * time.Second},
	})
	const tries, bound = 300, 256
	var held []net.Conn
	for range tries {
		held = append(held, dialRaw(t, b))
	}
	until(t, "those beyond the bound are refused", func() bool { return b.Stats().Refused == tries-bound })
	for _, c := range held {
		// The end is a reset for some.
		_, _ = io.Copy(io.Discard, c)
	}
	near, far := connect(t, TCP, start(t, Config{Listen: b.cfg.Listen}), b)
	stream(t, near, far)
}
