package overlay

import (
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/route"
)

const (
	// keptFor is how long after the start a prefix is held for a member that is
	// not heard: as long as a member stays in the table that falls silent.
	keptFor = time.Hour
	// prefixEvery is the least time between two writes of the believed prefixes.
	prefixEvery = 10 * time.Second
)

// keptPrefixes are those that were believed before the start.
func (s *state) keptPrefixes() []route.Owned {
	var out []route.Owned
	for _, p := range s.Prefixes {
		out = append(out, route.Owned{Prefix: p.Prefix, ID: p.ID})
	}
	return out
}

// stillKept are the kept prefixes that a turn has left: not those of members
// that were heard, whose own records tell from here on. Before the agent has
// said what to accept, no record tells.
func (w world) stillKept(since time.Duration) []route.Owned {
	if since >= keptFor {
		return nil
	}
	if !w.routes.Accept.Range.IsValid() {
		return w.kept
	}
	return slices.DeleteFunc(slices.Clone(w.kept), func(o route.Owned) bool {
		return o.ID == w.claim.id || slices.ContainsFunc(w.members, func(m member.Member) bool { return m.ID == o.ID })
	})
}

// keepPrefixes writes down who has which prefix, when that changed. What a
// member changes every few seconds is written less often.
func (n *Node) keepPrefixes(table *route.Table) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.world.routes.Accept.Range.IsValid() {
		return // nothing is believed yet: what was known counts
	}
	next := othersPrefixes(table, n.world.claim.id)
	if slices.Equal(next, n.state.Prefixes) || time.Since(n.applied.kept) < prefixEvery {
		return
	}
	n.applied.kept = time.Now()
	n.state.Prefixes = next
	n.warn("save who has which prefix", n.writeState(n.state))
}

func othersPrefixes(table *route.Table, self identity.ID) []keptPrefix {
	var out []keptPrefix
	for _, o := range table.Prefixes() {
		if o.ID != self {
			out = append(out, keptPrefix{ID: o.ID, Prefix: o.Prefix})
		}
	}
	return out
}
