package underlay

import (
	"net/netip"
	"slices"
	"time"
)

// view is what the kernel has told of this machine's network so far. It finds, among all
// that it tells, what may change whom this machine reaches. Pods that come and go, the
// overlay's own routes, and addresses whose lifetime is extended do not.
type view struct {
	links map[int]linkState
	addrs map[addrAt]addrState
}

// linkState is a link, as far as it matters.
type linkState struct {
	kind     string
	loopback bool
	flags    uint32 // whether it is up, and has a carrier
}

// addrAt is an address on a link.
type addrAt struct {
	link int
	addr netip.Addr
}

// addrState is how an address may be used: see cardAddr.
type addrState struct{ passing bool }

// routeNews is a route that came or went.
type routeNews struct {
	link   int // 0: several, or none
	bits   int // of the destination's prefix; 0 for a default route
	max    int // bits of an address
	kernel bool
	local  bool // of an address of this machine
}

func newView() *view {
	return &view{links: make(map[int]linkState), addrs: make(map[addrAt]addrState)}
}

// link takes a link's new state, and reports whether it matters.
func (v *view) link(index int, now linkState) bool {
	was, known := v.links[index]
	v.links[index] = now
	return (!known || was.flags != now.flags) && v.leadsOut(index, now)
}

// noLink takes the end of a link.
func (v *view) noLink(index int) bool {
	was, known := v.links[index]
	matters := known && v.leadsOut(index, was)
	delete(v.links, index)
	for at := range v.addrs {
		if at.link == index {
			delete(v.addrs, at)
		}
	}
	return matters
}

// leadsOut reports whether others may be reached over a link. One of a kind that is for
// this machine alone may be the card of a container, and has an address then. A bridge
// leads where its ports do, of which the kernel tells as well.
func (v *view) leadsOut(index int, l linkState) bool {
	switch {
	case l.loopback, l.kind == "bridge":
		return false
	case !slices.Contains(inside, l.kind) && l.kind != "tun":
		return true
	}
	for at := range v.addrs {
		if at.link == index {
			return true
		}
	}
	return false
}

// addr takes an address's new state. The kernel repeats it whenever a router extends its
// life.
func (v *view) addr(at addrAt, now addrState) bool {
	if !tellable(at.addr) {
		return false
	}
	was, known := v.addrs[at]
	v.addrs[at] = now
	return !known || was != now
}

// noAddr takes the end of an address.
func (v *view) noAddr(at addrAt) bool {
	_, known := v.addrs[at]
	delete(v.addrs, at)
	return known
}

// tellable reports whether an address is one that others could use.
func tellable(a netip.Addr) bool {
	return a.IsValid() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast()
}

// route takes a route that came or went. Those that the kernel makes follow addresses.
func (v *view) route(r routeNews) bool {
	kind := v.links[r.link].kind
	switch {
	case r.local, r.kernel:
		return false
	case r.bits == 0:
		return true
	case kind == "tun": // the overlay's own ones among them
		return false
	case r.bits == r.max: // of a pod
		return !slices.Contains(inside, kind)
	}
	return true
}

// How changes become news.
const (
	calm     = 100 * time.Millisecond // after the first of several changes in a row
	interval = time.Second            // between news
	asleep   = time.Second            // of sleep that is noticed
)

// pace makes one piece of news of several changes in a row. Its times are since any
// fixed moment.
type pace struct {
	interval time.Duration
	pending  bool
	due      time.Duration // while pending
	last     time.Duration // when there was news
	ever     bool
}

// note takes a change.
func (p *pace) note(now time.Duration) {
	if p.pending {
		return
	}
	p.pending, p.due = true, now+calm
	if p.ever {
		p.due = max(p.due, p.last+p.interval)
	}
}

// tell reports whether it is time for news, and takes them as told.
func (p *pace) tell(now time.Duration) bool {
	if !p.pending || now < p.due {
		return false
	}
	p.pending, p.last, p.ever = false, now, true
	return true
}

// slept reports whether a machine was asleep between two readings of its clocks: how far
// the one that goes on in sleep is ahead of the one that does not.
func slept(before, after time.Duration) bool { return after-before >= asleep }
