package underlay

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

func ofCard(texts ...string) []cardAddr {
	var out []cardAddr
	for _, a := range addrs(texts...) {
		out = append(out, cardAddr{addr: a})
	}
	return out
}

// The address that others reach comes before those of bridges with lower numbers (fault
// O8: eight of them hid it).
func TestOrder(t *testing.T) {
	lo := card{index: 1, loopback: true, carrier: true, addrs: ofCard("127.0.0.1", "::1")}
	laptop := []card{lo}
	for i := range 9 {
		laptop = append(laptop, card{index: 10 + i, kind: "bridge", carrier: i%2 == 0, addrs: ofCard(fmt.Sprintf("172.%d.0.1", 17+i))})
	}
	laptop = append(laptop, card{index: 2, carrier: true, routed: true, addrs: ofCard("192.168.1.20", "fe80::1")})
	bridges := addrs("172.17.0.1", "172.18.0.1", "172.19.0.1", "172.20.0.1", "172.21.0.1", "172.22.0.1", "172.23.0.1", "172.24.0.1", "172.25.0.1")

	tests := map[string]struct {
		cards []card
		want  []netip.Addr
	}{
		"nothing": {nil, nil},
		"a laptop with bridges for containers": {
			laptop, slices.Concat(addrs("192.168.1.20"), bridges, addrs("127.0.0.1", "::1")),
		},
		"two cards, a tunnel, and one without a cable": {
			[]card{
				{index: 5, kind: "wireguard", carrier: true, addrs: ofCard("10.0.0.2")},
				{index: 4, addrs: ofCard("10.0.0.1")},
				{index: 3, carrier: true, addrs: ofCard("10.9.0.1")},
				{index: 2, carrier: true, routed: true, addrs: ofCard("10.10.0.1")},
			},
			addrs("10.10.0.1", "10.9.0.1", "10.0.0.2", "10.0.0.1"),
		},
		"a bridge with a card in it": {
			[]card{
				{index: 6, kind: "bridge", carrier: true, addrs: ofCard("10.1.0.1")},
				{index: 7, kind: "veth", master: 6, carrier: true},
				{index: 8, kind: "bridge", carrier: true, addrs: ofCard("10.2.0.1")},
				{index: 9, master: 8, carrier: true},
			},
			addrs("10.2.0.1", "10.1.0.1"),
		},
		"a container, whose card is one end of a pair": {
			[]card{lo, {index: 2, kind: "veth", carrier: true, routed: true, addrs: ofCard("172.17.0.2")}},
			addrs("172.17.0.2", "127.0.0.1", "::1"),
		},
		"addresses that pass come after those that last": {
			[]card{{index: 2, carrier: true, routed: true, addrs: []cardAddr{
				{addr: netip.MustParseAddr("2001:db8::1"), passing: true},
				{addr: netip.MustParseAddr("2001:db8::ff")},
				{addr: netip.MustParseAddr("192.0.2.1")},
			}}},
			addrs("192.0.2.1", "2001:db8::ff", "2001:db8::1"),
		},
		"one address on two cards": {
			[]card{{index: 2, kind: "bridge", carrier: true, addrs: ofCard("10.0.0.1")}, {index: 3, carrier: true, addrs: ofCard("10.0.0.1", "10.0.0.2")}},
			addrs("10.0.0.1", "10.0.0.2"),
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for range 2 { // whatever the order in which the kernel lists them
				if got := order(tt.cards); !slices.Equal(got, tt.want) {
					t.Errorf("%v, want %v", got, tt.want)
				}
				slices.Reverse(tt.cards)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	tests := map[string]struct {
		locals         []netip.Addr
		remote, source string
		want           int
	}{
		"nothing is open":               {nil, "10.0.0.9", "10.0.0.1", -1},
		"the other family":              {addrs("::"), "10.0.0.9", "10.0.0.1", -1},
		"the kernel chooses":            {addrs("::", "0.0.0.0"), "10.0.0.9", "10.0.0.1", 1},
		"the address that it would":     {addrs("0.0.0.0", "10.0.0.1"), "10.0.0.9", "10.0.0.1", 1},
		"another one than it would":     {addrs("10.0.0.2", "0.0.0.0"), "10.0.0.9", "10.0.0.1", 1},
		"only others than it would":     {addrs("10.0.0.2", "10.0.0.3"), "10.0.0.9", "10.0.0.1", -1},
		"loopback does not lead out":    {addrs("127.0.0.1"), "10.0.0.9", "10.0.0.1", -1},
		"IPv6, from one of two":         {addrs("fd00::1", "fd00::2"), "fd00::9", "fd00::2", 1},
		"there is no way, and one asks": {addrs("10.0.0.2"), "10.0.0.9", "", -1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := choose(tt.locals, netip.MustParseAddr(tt.remote), func() netip.Addr {
				a, _ := netip.ParseAddr(tt.source)
				return a
			})
			if got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
	if got := sourceFor(netip.MustParseAddr("127.0.0.1")); got != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("from %s to itself", got)
	}
}
