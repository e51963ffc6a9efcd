package route

import (
	"net/netip"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/rights"
)

// Input is everything that a Table follows from.
type Input struct {
	Self identity.ID
	// Network bounds what addresses a member may have. With the zero Network
	// no address is believed.
	Network identity.Network
	// Members holds this node too. Of several entries with one ID the first counts.
	Members []Entry
	// Accept bounds whose prefixes are believed; the zero Accept believes none.
	Accept Accept
	// Before is the table until now, nil at the start. Pinned and IDs are the
	// members' own choice: without it a newcomer could draw the traffic of pods
	// that run already to itself.
	Before *Table
	// Kept are prefixes that were believed before this daemon started, by their
	// owners: Before for a start. A prefix whose owner is not among Members is
	// nobody else's meanwhile: who is heard first after a start must not win.
	Kept []Owned
}

// Entry is one member as it describes itself.
type Entry struct {
	ID       identity.ID
	Addrs    []netip.Addr   // overlay addresses
	Pinned   bool           // Addrs will not change any more
	Prefixes []netip.Prefix // what lies behind the member
	Rights   rights.Rights  // whether that may be believed
}

// Accept bounds which announced prefixes are believed.
type Accept struct {
	NetworkID string       // only members of this cluster
	Range     netip.Prefix // only prefixes inside this range
}

// Conflict tells that two members want the same address, or overlapping prefixes.
type Conflict struct {
	Prefix netip.Prefix // what Loser did not get; an address is a /32 or /128
	Winner identity.ID
	Loser  identity.ID
}

// Refusal tells that a claim was not believed, whoever else may want it.
type Refusal struct {
	ID     identity.ID
	Prefix netip.Prefix // an address is a /32 or /128
	Reason string
}

// Owned is one destination and the member behind it.
type Owned struct {
	Prefix netip.Prefix // an address is a /32 or /128
	ID     identity.ID
}

// Table is an immutable routing table, safe for concurrent use. The nil Table
// knows nobody.
type Table struct {
	self      identity.ID
	addrs     map[netip.Addr]identity.ID
	spans     []span // sorted, never overlapping
	owned     []Owned
	conflicts []Conflict
	refused   []Refusal
}

// span is an accepted prefix as the addresses from first to last.
type span struct {
	first, last netip.Addr
	owner       Owned
}

// Self returns the node whose table this is.
func (t *Table) Self() identity.ID {
	if t == nil {
		return identity.ID{}
	}
	return t.self
}

// Lookup returns the member behind dst, which is this node itself for its own
// addresses and prefixes. It does not allocate.
func (t *Table) Lookup(dst netip.Addr) (identity.ID, bool) {
	// A zone or an IPv4 address in IPv6 clothes never comes out of a packet,
	// and must not be a second name for an address.
	if t == nil || dst.Zone() != "" || dst.Is4In6() {
		return identity.ID{}, false
	}
	if id, ok := t.addrs[dst]; ok {
		return id, true
	}
	if i := search(t.spans, dst); i < len(t.spans) && t.spans[i].first.Compare(dst) <= 0 {
		return t.spans[i].owner.ID, true
	}
	return identity.ID{}, false
}

// SourceOK reports whether id may send packets from src: only from where
// packets to src would go. It does not allocate.
func (t *Table) SourceOK(id identity.ID, src netip.Addr) bool {
	owner, ok := t.Lookup(src)
	return ok && owner == id
}

// gave reports whether the table believed this prefix of this member.
func (t *Table) gave(id identity.ID, prefix netip.Prefix) bool {
	if t == nil {
		return false
	}
	i := search(t.spans, prefix.Addr())
	return i < len(t.spans) && t.spans[i].owner == Owned{Prefix: prefix, ID: id}
}

// Conflicts lists who lost what to whom, sorted by loser. The caller must not modify it.
func (t *Table) Conflicts() []Conflict {
	if t == nil {
		return nil
	}
	return t.conflicts
}

// Refused lists claims that were not believed, sorted by member. The caller must not modify it.
func (t *Table) Refused() []Refusal {
	if t == nil {
		return nil
	}
	return t.refused
}

// Prefixes lists the believed prefixes with their owners, in the order of their
// addresses: what Input.Kept takes after a restart. The caller may keep it.
func (t *Table) Prefixes() []Owned {
	if t == nil {
		return nil
	}
	out := make([]Owned, 0, len(t.spans))
	for _, s := range t.spans {
		out = append(out, s.owner)
	}
	return out
}

// Owned lists every destination with the member behind it, addresses and
// prefixes, in the order of netip.Prefix. The caller must not modify it.
func (t *Table) Owned() []Owned {
	if t == nil {
		return nil
	}
	return t.owned
}

// search returns the index of the first span that does not end before addr: the
// only one that can contain it.
func search(spans []span, addr netip.Addr) int {
	low, high := 0, len(spans)
	for low < high {
		middle := int(uint(low+high) / 2)
		if spans[middle].last.Compare(addr) < 0 {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}
