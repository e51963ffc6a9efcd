package underlay

import (
	"cmp"
	"net/netip"
	"slices"
)

// card is an interface of this machine, as the kernel describes it.
type card struct {
	index, master int    // master is the bridge or bond that it belongs to
	kind          string // as ip-link(8) names it; "" for hardware and loopback
	loopback      bool
	carrier       bool // it is up, and a cable or something like it is in
	routed        bool // it has a default route
	addrs         []cardAddr
}

// cardAddr is an address of a card.
type cardAddr struct {
	addr netip.Addr
	// passing addresses change soon: deprecated ones, and those that are drawn anew each
	// day (RFC 8981).
	passing bool
}

// The uses of a card, the most useful first. Who has many bridges for containers would
// otherwise have others dial them all before an address that they can reach.
const (
	useRouted   = iota // it has a default route
	useOutside         // hardware, and what stands directly on it
	useTunnel          // of somebody else's making
	useInside          // for this machine alone, or nothing is plugged in
	useLoopback        // of no use for others
)

// onHardware are the kinds that stand for a piece of hardware or a part of it.
var onHardware = []string{"", "bond", "team", "vlan", "macvlan", "ipvlan", "ppp", "wwan"}

// inside are the kinds that by themselves lead nowhere but to this machine.
var inside = []string{"bridge", "veth", "dummy", "ifb", "netkit"}

// use says what a card is good for. A bridge with hardware in it is like that.
func (c card) use(all []card) int {
	port := func(p card) bool { return p.master == c.index && slices.Contains(onHardware, p.kind) }
	switch {
	case c.loopback:
		return useLoopback
	case c.routed:
		return useRouted
	case !c.carrier:
		return useInside
	case slices.Contains(onHardware, c.kind), c.kind == "bridge" && slices.ContainsFunc(all, port):
		return useOutside
	case slices.Contains(inside, c.kind):
		return useInside
	}
	return useTunnel
}

// order returns the addresses of all cards, each once, the most useful first; those of
// the same use by what lasts, and then by number.
func order(cards []card) []netip.Addr {
	type ranked struct {
		cardAddr
		use int
	}
	var all []ranked
	for _, c := range cards {
		for _, a := range c.addrs {
			if a.addr.Is6() && a.addr.IsLinkLocalUnicast() {
				continue // it would need a zone
			}
			all = append(all, ranked{a, c.use(cards)})
		}
	}
	last := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	slices.SortFunc(all, func(a, b ranked) int {
		return cmp.Or(a.use-b.use, last(a.passing)-last(b.passing), a.addr.Compare(b.addr))
	})
	var out []netip.Addr
	for _, a := range all {
		if !slices.Contains(out, a.addr) {
			out = append(out, a.addr)
		}
	}
	return out
}
