package member

import (
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Expire removes who is gone and returns them, sorted: members that are neither
// connected nor refreshed for Limits.Expiry, and members that left for longer
// than Limits.LeftExpiry. It is to be called every few seconds; connected must
// not call the Table.
func (t *Table) Expire(now time.Time, connected func(identity.ID) bool) []identity.ID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var gone []identity.ID
	for id, e := range t.members {
		if id == t.self {
			continue
		}
		e.Connected = connected(id)
		if e.Connected {
			e.Refreshed = now
		}
		if t.expiredLocked(e, now) {
			gone = append(gone, id)
		}
	}
	slices.SortFunc(gone, identity.ID.Compare)
	for _, id := range gone {
		e := t.members[id]
		delete(t.members, id)
		t.tombstones[id] = tombstone{seq: e.Seq, when: now}
		if !e.Left { // who left is not in List any more
			t.revision++
		}
	}
	t.buryLocked(now)
	return gone
}

// SetConnected tells at once what Expire would ask later. Unknown members are ignored.
func (t *Table) SetConnected(id identity.ID, connected bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.members[id]; ok {
		e.Connected = connected
		e.Refreshed = now // it was alive until now in either case
	}
}

func (t *Table) expiredLocked(e *entry, now time.Time) bool {
	if e.Left {
		return now.Sub(e.since) >= t.limits.LeftExpiry
	}
	return !e.Connected && now.Sub(e.Refreshed) >= t.limits.Expiry
}

// buryLocked forgets tombstones that are old, and the oldest if there are too many.
func (t *Table) buryLocked(now time.Time) {
	for id, g := range t.tombstones {
		if now.Sub(g.when) >= t.limits.Tombstone {
			delete(t.tombstones, id)
		}
	}
	excess := len(t.tombstones) - t.limits.Tombstones
	if excess <= 0 {
		return
	}
	ids := make([]identity.ID, 0, len(t.tombstones))
	for id := range t.tombstones {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b identity.ID) int {
		if c := t.tombstones[a].when.Compare(t.tombstones[b].when); c != 0 {
			return c
		}
		return a.Compare(b)
	})
	for _, id := range ids[:excess] {
		delete(t.tombstones, id)
	}
}
