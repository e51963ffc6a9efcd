package datapath

import (
	"net/netip"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/route"
)

// memo is what a table said about the packet before: packets come in runs. It is for
// one goroutine.
type memo struct {
	routes   *route.Table // nil: it said nothing
	from     identity.ID
	src, dst netip.Addr
	to       identity.ID
	known    bool // that dst is to's
	genuine  bool // that src is from's
}

// ask makes to, known and genuine be about this packet.
func (m *memo) ask(routes *route.Table, from identity.ID, src, dst netip.Addr) {
	if routes != nil && routes == m.routes && from == m.from && src == m.src && dst == m.dst {
		return
	}
	m.routes, m.from, m.src, m.dst = routes, from, src, dst
	m.to, m.known = routes.Lookup(dst)
	m.genuine = routes.SourceOK(from, src)
}
