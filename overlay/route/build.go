package route

import (
	"net/netip"
	"slices"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/rights"
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
// member keeps the prefixes that Input.Before or Input.Kept gave it for as long
// as it claims them. Apart from that the result depends neither on the order of the members
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
	for _, m := range members {
		for _, prefix := range m.Prefixes {
			if b.had(m.ID, prefix) {
				b.claimPrefix(m, prefix)
			}
		}
	}
	b.holdForAbsent(members)
	for _, m := range members {
		for _, prefix := range m.Prefixes {
			if !b.had(m.ID, prefix) {
				b.claimPrefix(m, prefix)
			}
		}
	}
	return b.finish()
}

type builder struct {
	in    Input
	table *Table
}

// had reports whether the member had the prefix before.
func (b *builder) had(id identity.ID, prefix netip.Prefix) bool {
	return b.in.Before.gave(id, prefix) || slices.Contains(b.in.Kept, Owned{Prefix: prefix, ID: id})
}

// holdForAbsent gives what was kept to owners of which nothing is heard yet. A
// kept prefix is no claim of anybody, so that none of them is named as a loser.
func (b *builder) holdForAbsent(members []Entry) {
	for _, k := range b.in.Kept {
		here := slices.ContainsFunc(members, func(m Entry) bool { return m.ID == k.ID })
		if here || k.ID.IsZero() || b.reasonAgainst(k.Prefix) != "" {
			continue
		}
		if at, free := b.place(k); free {
			b.table.spans = slices.Insert(b.table.spans, at, spanOf(k))
		}
	}
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
	reason := b.reasonAgainst(prefix)
	if reason != ReasonForm && !m.Rights.May(rights.Route, b.in.Accept.NetworkID) {
		reason = ReasonNetworkID
	}
	if reason != "" {
		b.refuse(m.ID, prefix, reason)
		return
	}
	claim := Owned{Prefix: prefix, ID: m.ID}
	at, free := b.place(claim)
	if !free {
		// Every overlapping span follows from at on; name each owner once.
		b.loseAll(b.table.spans[at:], spanOf(claim))
		return
	}
	b.table.spans = slices.Insert(b.table.spans, at, spanOf(claim))
}

// reasonAgainst says why nobody may have the prefix; "" if somebody may.
func (b *builder) reasonAgainst(prefix netip.Prefix) string {
	accepted, network := b.in.Accept.Range, b.in.Network
	switch {
	case !prefix.IsValid() || prefix != prefix.Masked() || prefix.Addr().Is4In6():
		return ReasonForm
	case !accepted.IsValid() || prefix.Bits() < accepted.Bits() || !accepted.Contains(prefix.Addr()):
		return ReasonRange
	case network.V4.Overlaps(prefix) || network.V6.Overlaps(prefix):
		return ReasonOverlay
	}
	return ""
}

// place returns where in the spans o belongs, and whether nothing overlaps it.
func (b *builder) place(o Owned) (at int, free bool) {
	claim := spanOf(o)
	at = search(b.table.spans, claim.first)
	return at, at >= len(b.table.spans) || b.table.spans[at].first.Compare(claim.last) > 0
}

func spanOf(o Owned) span {
	return span{first: o.Prefix.Addr(), last: lastAddr(o.Prefix), owner: o}
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
