package route

import (
	"net/netip"
	"slices"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Reasons of a Refusal.
const (
	ReasonOutside   = "address outside the overlay's ranges"
	ReasonNotOwn    = "IPv6 address that does not follow from the member's id"
	ReasonForm      = "malformed address or prefix"
	ReasonRange     = "prefix outside the accepted range"
	ReasonOverlay   = "prefix inside the overlay's own ranges"
	ReasonNetworkID = "prefix of another cluster"
)

// Build decides who is behind what. Whoever is pinned comes first, then the
// lower ID; the first claim counts, and a prefix counts only as a whole. A
// member keeps the prefixes that Input.Before gave it for as long as it claims
// them. Apart from that the result depends neither on the order of the members
// nor on time.
func Build(in Input) *Table {
	b := builder{in: in, table: &Table{self: in.Self, addrs: make(map[netip.Addr]identity.ID, 2*len(in.Members))}}
	members := ranked(in.Members)
	for _, m := range members {
		for _, addr := range m.Addrs {
			b.claimAddr(m.ID, addr)
		}
	}
	// After all addresses: no prefix may take an address away.
	for _, kept := range []bool{true, false} {
		for _, m := range members {
			for _, prefix := range m.Prefixes {
				if in.Before.gave(m.ID, prefix) == kept {
					b.claimPrefix(m, prefix)
				}
			}
		}
	}
	return b.finish()
}

type builder struct {
	in    Input
	table *Table
}

// ranked returns the members in the order in which their claims count.
func ranked(members []Entry) []Entry {
	out := make([]Entry, 0, len(members))
	seen := make(map[identity.ID]bool, len(members))
	for _, m := range members {
		if !m.ID.IsZero() && !seen[m.ID] {
			seen[m.ID] = true
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int {
		if a.Pinned != b.Pinned {
			if a.Pinned {
				return -1
			}
			return 1
		}
		return a.ID.Compare(b.ID)
	})
	return out
}

func (b *builder) claimAddr(id identity.ID, addr netip.Addr) {
	if !addr.IsValid() {
		b.refuse(id, netip.Prefix{}, ReasonForm)
		return
	}
	host := netip.PrefixFrom(addr, addr.BitLen())
	switch {
	case addr.Zone() != "" || addr.Is4In6():
		b.refuse(id, host, ReasonForm)
		return
	case !b.in.Network.Contains(addr):
		b.refuse(id, host, ReasonOutside)
		return
	case addr.Is6() && addr != b.in.Network.V6Addr(id):
		// An IPv6 address can be checked, so that nobody takes another's.
		b.refuse(id, host, ReasonNotOwn)
		return
	}
	if winner, taken := b.table.addrs[addr]; taken {
		if winner != id {
			b.lose(host, winner, id)
		}
		return
	}
	b.table.addrs[addr] = id
}

func (b *builder) claimPrefix(m Entry, prefix netip.Prefix) {
	accepted, network := b.in.Accept.Range, b.in.Network
	switch {
	case !prefix.IsValid() || prefix != prefix.Masked() || prefix.Addr().Is4In6():
		b.refuse(m.ID, prefix, ReasonForm)
		return
	case m.NetworkID != b.in.Accept.NetworkID:
		b.refuse(m.ID, prefix, ReasonNetworkID)
		return
	case !accepted.IsValid() || prefix.Bits() < accepted.Bits() || !accepted.Contains(prefix.Addr()):
		b.refuse(m.ID, prefix, ReasonRange)
		return
	case network.V4.Overlaps(prefix) || network.V6.Overlaps(prefix):
		b.refuse(m.ID, prefix, ReasonOverlay)
		return
	}
	claim := span{first: prefix.Addr(), last: lastAddr(prefix), owner: Owned{Prefix: prefix, ID: m.ID}}
	spans := b.table.spans
	at := search(spans, claim.first)
	if at < len(spans) && spans[at].first.Compare(claim.last) <= 0 {
		// Every overlapping span follows from at on; name each owner once.
		b.loseAll(spans[at:], claim)
		return
	}
	b.table.spans = slices.Insert(spans, at, claim)
}

// loseAll records the conflicts of a claim with the spans that it overlaps.
func (b *builder) loseAll(spans []span, claim span) {
	named := map[identity.ID]bool{claim.owner.ID: true} // one's own overlap is no conflict
	for _, s := range spans {
		if s.first.Compare(claim.last) > 0 {
			return
		}
		if !named[s.owner.ID] {
			named[s.owner.ID] = true
			b.lose(claim.owner.Prefix, s.owner.ID, claim.owner.ID)
		}
	}
}

func (b *builder) lose(prefix netip.Prefix, winner, loser identity.ID) {
	b.table.conflicts = append(b.table.conflicts, Conflict{Prefix: prefix, Winner: winner, Loser: loser})
}

func (b *builder) refuse(id identity.ID, prefix netip.Prefix, reason string) {
	b.table.refused = append(b.table.refused, Refusal{ID: id, Prefix: prefix, Reason: reason})
}

func (b *builder) finish() *Table {
	t := b.table
	t.owned = make([]Owned, 0, len(t.addrs)+len(t.spans))
	for addr, id := range t.addrs {
		t.owned = append(t.owned, Owned{Prefix: netip.PrefixFrom(addr, addr.BitLen()), ID: id})
	}
	for _, s := range t.spans {
		t.owned = append(t.owned, s.owner)
	}
	slices.SortFunc(t.owned, func(a, b Owned) int { return a.Prefix.Compare(b.Prefix) })
	slices.SortStableFunc(t.conflicts, func(a, b Conflict) int { return a.Loser.Compare(b.Loser) })
	slices.SortStableFunc(t.refused, func(a, b Refusal) int { return a.ID.Compare(b.ID) })
	return t
}

// lastAddr returns the highest address of a masked prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	raw := p.Addr().As16()
	offset := 128 - p.Addr().BitLen()
	for bit := offset + p.Bits(); bit < 128; bit++ {
		raw[bit/8] |= 0x80 >> (bit % 8)
	}
	last := netip.AddrFrom16(raw)
	if p.Addr().Is4() {
		return last.Unmap()
	}
	return last
}
