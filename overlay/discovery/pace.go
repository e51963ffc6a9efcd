package discovery

import (
	"container/list"
	"net/netip"
	"time"
)

// Bounds of what one source on the local network may announce.
const (
	paceBurst  = 8           // at once
	paceRefill = time.Second // for one more: no member answers more often
	maxSources = 1024        // remembered; the longest unheard is forgotten first
)

// pace bounds how many announcements of each source are passed on. Its caller locks.
type pace struct {
	sources map[netip.Addr]*list.Element // of *source
	order   list.List                    // front: heard last
}

type source struct {
	addr netip.Addr
	left float64
	at   time.Time
}

// allow takes one announcement from the budget of its source.
func (p *pace) allow(from netip.Addr, now time.Time) bool {
	from = from.Unmap().WithZone("")
	el, ok := p.sources[from]
	if !ok {
		if p.sources == nil {
			p.sources = make(map[netip.Addr]*list.Element)
		}
		if len(p.sources) >= maxSources {
			oldest := p.order.Back()
			delete(p.sources, oldest.Value.(*source).addr)
			p.order.Remove(oldest)
		}
		el = p.order.PushFront(&source{addr: from, left: paceBurst, at: now})
		p.sources[from] = el
	}
	p.order.MoveToFront(el)
	s := el.Value.(*source)
	s.left = min(paceBurst, s.left+float64(max(0, now.Sub(s.at)))/float64(paceRefill))
	s.at = now
	if s.left < 1 {
		return false
	}
	s.left--
	return true
}
