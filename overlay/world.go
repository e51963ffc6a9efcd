package overlay

import (
	"net/netip"
	"slices"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/dns"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/rights"
	"github.com/kairos-io/kairos/overlay/route"
	"github.com/kairos-io/kairos/overlay/tun"
	"github.com/kairos-io/kairos/overlay/wire"
)

// world is everything that one turn of the loop looks at. What follows from it
// is computed without I/O.
type world struct {
	claim       claim
	name, kind  string
	networkID   string
	version     string
	underlay    []netip.AddrPort
	annotations map[string]string
	routes      api.Routes
	before      *route.Table    // in force until now: who has a prefix keeps it
	kept        []route.Owned   // prefixes of members that were not heard since the start: theirs still
	members     []member.Member // this one included or not: its own entry is taken from the fields above
}

// record is what this member says about itself.
func (w world) record() wire.Record {
	return wire.Record{
		ID:          w.claim.id,
		Name:        w.name,
		Kind:        w.kind,
		NetworkID:   w.networkID,
		Version:     wire.Clean(w.version, wire.MaxVersion),
		Addrs:       w.claim.addrs(),
		Pinned:      w.claim.pinned,
		Underlay:    w.underlay[:min(len(w.underlay), wire.MaxUnderlay)],
		Prefixes:    w.routes.Announce,
		Annotations: w.annotations,
	}
}

// table decides who is behind which address.
func (w world) table() *route.Table {
	self := w.record()
	in := route.Input{
		Self:    w.claim.id,
		Network: w.claim.network,
		Members: []route.Entry{entry(self)},
		Accept:  route.Accept{NetworkID: w.routes.Accept.NetworkID, Range: w.routes.Accept.Range},
		Before:  w.before,
		Kept:    w.kept,
	}
	for _, m := range w.members {
		if m.ID != w.claim.id {
			in.Members = append(in.Members, entry(m.Record))
		}
	}
	return route.Build(in)
}

func entry(r wire.Record) route.Entry {
	return route.Entry{ID: r.ID, Addrs: r.Addrs, Pinned: r.Pinned, Prefixes: r.Prefixes, Rights: rights.Of(r)}
}

// kernelAddrs are the interface's addresses, each with the overlay's range.
func (w world) kernelAddrs() []netip.Prefix {
	n := w.claim.network
	return []netip.Prefix{
		netip.PrefixFrom(w.claim.addr(), n.V4.Bits()),
		netip.PrefixFrom(n.V6Addr(w.claim.id), n.V6.Bits()),
	}
}

// kernelRoutes are what else the kernel sends into the interface: the range of
// others' prefixes and the agent's local ones. Our own address is the source,
// so that answers come back over the overlay.
func (w world) kernelRoutes() []tun.Route {
	var prefixes []netip.Prefix
	if w.routes.Accept.Range.IsValid() {
		prefixes = append(prefixes, w.routes.Accept.Range)
	}
	for _, p := range w.routes.Local {
		if !slices.Contains(prefixes, p) {
			prefixes = append(prefixes, p)
		}
	}
	out := make([]tun.Route, 0, len(prefixes))
	for _, p := range prefixes {
		src := w.claim.addr()
		if p.Addr().Is6() {
			src = w.claim.network.V6Addr(w.claim.id)
		}
		out = append(out, tun.Route{Prefix: p, Src: src})
	}
	return out
}

// hosts are the members as the name server needs them, sorted by ID.
func (w world) hosts() []dns.Host {
	table := w.table()
	out := []dns.Host{{ID: w.claim.id, Name: w.name, Addrs: w.claim.addrs()}}
	for _, m := range w.members {
		if m.ID != w.claim.id {
			out = append(out, dns.Host{ID: m.ID, Name: rights.Of(m.Record).Name(), Addrs: believed(table, m.ID, m.Addrs)})
		}
	}
	slices.SortFunc(out, func(a, b dns.Host) int { return a.ID.Compare(b.ID) })
	return out
}

// believed are the addresses that really lead to the member.
func believed(t *route.Table, id identity.ID, addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if owner, ok := t.Lookup(a); ok && owner == id {
			out = append(out, a)
		}
	}
	return out
}
