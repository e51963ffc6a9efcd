package member

import (
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/wire"
)

// tombstone is what stays of a member that is gone: its last record.
type tombstone struct {
	seq    uint64
	signed wire.Signed
	left   bool // it said goodbye
	when   time.Time
}

// graveyard holds the tombstones. What is over its bounds is forgotten whole, the
// oldest first: a sequence number without its record would mute an author that
// forgot its own.
type graveyard struct {
	stones map[identity.ID]tombstone
	bytes  int
}

func (g *graveyard) bury(e *entry, now time.Time) {
	g.stones[e.ID] = tombstone{seq: e.Seq, signed: e.Signed, left: e.Left, when: now}
	g.bytes += len(e.Signed)
}

func (g *graveyard) dig(id identity.ID) {
	if stone, ok := g.stones[id]; ok {
		g.bytes -= len(stone.signed)
		delete(g.stones, id)
	}
}

// trim forgets what is old, and the oldest of what is too much.
func (g *graveyard) trim(limits Limits, now time.Time) {
	for id, stone := range g.stones {
		if now.Sub(stone.when) >= limits.Tombstone {
			g.dig(id)
		}
	}
	if len(g.stones) <= limits.Tombstones && g.bytes <= limits.TombstoneBytes {
		return
	}
	ids := make([]identity.ID, 0, len(g.stones))
	for id := range g.stones {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b identity.ID) int {
		if c := g.stones[a].when.Compare(g.stones[b].when); c != 0 {
			return c
		}
		return a.Compare(b)
	})
	for _, id := range ids {
		if len(g.stones) <= limits.Tombstones && g.bytes <= limits.TombstoneBytes {
			return
		}
		g.dig(id)
	}
}

// Expire removes who is gone and returns them, sorted: members that are neither
// connected nor refreshed for Limits.Expiry, and members that left for longer
// than Limits.LeftExpiry. It is to be called every few seconds.
func (t *Table) Expire(now time.Time) []identity.ID {
	var gone []identity.ID
	for i := 0; i < len(t.entries); {
		e := t.entries[i]
		if e.ID != t.self && t.connected[e.ID] {
			e.refreshed = now
		}
		t.unmark(e, now)
		if e.ID == t.self || !t.expired(e, now) {
			i++
			continue
		}
		gone = append(gone, e.ID)
		t.gone.bury(e, now)
		t.remove(i)
	}
	t.gone.trim(t.limits, now)
	return gone
}

func (t *Table) expired(e *entry, now time.Time) bool {
	if e.Left {
		return now.Sub(e.since) >= t.limits.LeftExpiry
	}
	return !t.connected[e.ID] && now.Sub(e.refreshed) >= t.limits.Expiry
}

// SetConnected says that a connection of a peer began or ended, whether or not it
// is a member already.
func (t *Table) SetConnected(id identity.ID, connected bool, now time.Time) {
	if connected {
		t.connected[id] = true
	} else {
		delete(t.connected, id)
	}
	if i, ok := t.find(id); ok {
		e := t.entries[i]
		e.refreshed = now // it was alive until now in either case
		t.replace(e, func(m *Member) { m.Refreshed = now })
	}
}

// replace puts a changed copy in the place of an entry's Member, which others read.
func (t *Table) replace(e *entry, change func(*Member)) {
	m := *e.Member
	change(&m)
	e.Member, t.snapshot = &m, nil
}
