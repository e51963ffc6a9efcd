package dial

import (
	"net/netip"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Missing is somebody who should be connected and is not, and what was tried.
type Missing struct {
	Member    identity.ID // zero for a host of which nobody knows who lives there
	Host      string      // as configured; "" if it was not
	Away      time.Duration
	Addresses int            // known of it
	Tries     uint64         // dials so far
	Addr      netip.AddrPort // of the dial that ended last
	Transport Transport      // of that
	Why       string         // it failed; "" if none ended yet
}

// Missing lists the first of those who are missing, rumours apart.
func (s *Scheduler) Missing(now time.Duration, limit int) []Missing {
	var out []Missing
	for _, t := range s.all {
		if len(out) == limit {
			break
		}
		if t.rumour || t.conn != absent || !s.wants(t) {
			continue
		}
		m := Missing{
			Member: t.id, Away: now - t.away, Addresses: len(t.addrs), Tries: t.tries,
			Addr: t.lastTried.Addr, Transport: t.lastTried.Transport, Why: t.lastResult,
		}
		switch {
		case t.host != nil:
			m.Host = t.host.name
		case len(t.hosts) > 0:
			m.Host = t.hosts[0].name
		}
		out = append(out, m)
	}
	return out
}

// Addrs is where a member may be, in the order in which that is tried.
func (s *Scheduler) Addrs(now time.Duration, id identity.ID) []netip.AddrPort {
	t := s.targets[id]
	if t == nil {
		return nil
	}
	var out []netip.AddrPort
	for _, a := range t.addrs {
		if a.own <= now && a.rank != rankShared {
			out = append(out, a.addr)
		}
	}
	return out
}

// Knows reports whether somebody vouched for a member, or it was connected lately.
func (s *Scheduler) Knows(id identity.ID) bool {
	t := s.targets[id]
	return t != nil && !t.rumour
}

// Counts are the sizes of what a Scheduler keeps.
type Counts struct {
	Members int // known, rumours included
	Rumours int // of these
	Dials   int // under way
}

// Counts returns the sizes of what is kept now.
func (s *Scheduler) Counts() Counts {
	return Counts{Members: len(s.targets), Rumours: len(s.rumours), Dials: len(s.dials)}
}
