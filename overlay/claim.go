package overlay

import (
	"net/netip"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/route"
)

// maxAttempts bounds the search for a free address. With a /24 and every other
// address taken, missing 1,000 times in a row has a chance below 2^-1000.
const maxAttempts = 1000

// claim is this member's IPv4 address: which of its choices is in force, and
// whether it may still change. It is a value without I/O.
type claim struct {
	id      identity.ID
	network identity.Network
	attempt uint32
	pinned  bool
}

func (c claim) addr() netip.Addr { return c.network.V4Addr(c.id, c.attempt) }

// addrs are both of the member's addresses, IPv4 first.
func (c claim) addrs() []netip.Addr {
	return []netip.Addr{c.addr(), c.network.V6Addr(c.id)}
}

// resolve returns the claim that holds given what the other members claim, and
// who took the address if this member lost it and is pinned to it: then two
// members were pinned while they could not see each other, which only a person
// can solve.
//
// Whoever is pinned keeps, then the lower ID; the loser takes its next choice
// that nobody has. Both sides compute this alike, from each other's records.
func (c claim) resolve(t *route.Table) (claim, identity.ID) {
	winner, lost := c.lostTo(t)
	if !lost {
		return c, identity.ID{}
	}
	if c.pinned {
		return c, winner
	}
	for range maxAttempts {
		c.attempt++
		if owner, taken := t.Lookup(c.addr()); !taken || owner == c.id {
			break
		}
	}
	return c, identity.ID{}
}

func (c claim) lostTo(t *route.Table) (identity.ID, bool) {
	host := netip.PrefixFrom(c.addr(), c.addr().BitLen())
	for _, x := range t.Conflicts() {
		if x.Loser == c.id && x.Prefix == host {
			return x.Winner, true
		}
	}
	return identity.ID{}, false
}
