package tun

import (
	"net/netip"
	"slices"
)

// routeChange is how to get from the routes there are to those there should be.
type routeChange struct {
	add     []Route // no route of ours with this prefix yet
	replace []Route // ours, with another source
	del     []Route // ours, no longer wanted
}

// planRoutes compares routes of ours. The first of several wanted routes with
// one prefix wins. Prefixes are compared masked.
func planRoutes(have, want []Route) routeChange {
	var change routeChange
	old := make(map[netip.Prefix]Route, len(have))
	for _, r := range have {
		old[r.Prefix.Masked()] = r
	}
	seen := make(map[netip.Prefix]bool, len(want))
	for _, r := range want {
		r.Prefix = r.Prefix.Masked()
		if !r.Prefix.IsValid() || seen[r.Prefix] {
			continue
		}
		seen[r.Prefix] = true
		was, there := old[r.Prefix]
		switch {
		case !there:
			change.add = append(change.add, r)
		case was.Src != r.Src:
			change.replace = append(change.replace, r)
		}
	}
	for _, r := range have {
		if !seen[r.Prefix.Masked()] {
			change.del = append(change.del, r)
		}
	}
	return change
}

// planAddrs compares addresses, ignoring their order.
func planAddrs(have, want []netip.Addr) (add, del []netip.Addr) {
	for _, a := range want {
		if !slices.Contains(have, a) && !slices.Contains(add, a) {
			add = append(add, a)
		}
	}
	for _, a := range have {
		if !slices.Contains(want, a) {
			del = append(del, a)
		}
	}
	return add, del
}

// networkRoutes are the routes that addresses with networks stand for: the
// network through the interface, from the address. A host prefix needs none.
func networkRoutes(addrs []netip.Prefix) []Route {
	var routes []Route
	for _, p := range addrs {
		if !p.IsSingleIP() {
			routes = append(routes, Route{Prefix: p.Masked(), Src: p.Addr()})
		}
	}
	return routes
}
