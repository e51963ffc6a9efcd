package member

import (
	"slices"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Digest says what this table knows, the members gone included: so nobody sends
// their records again.
func (t *Table) Digest() wire.Digest {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(wire.Digest, len(t.members)+len(t.tombstones))
	for id, gone := range t.tombstones {
		out[id] = gone.seq
	}
	for id, e := range t.members {
		out[id] = e.Seq
	}
	return out
}

// Missing returns up to limit records that are newer than in theirs: this
// node's own first, then by ID. Members that left are among them, so that the
// goodbye spreads. What is over the limit comes up again with the next digest.
func (t *Table) Missing(theirs wire.Digest, limit int) []wire.Signed {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ids []identity.ID
	for id, e := range t.members {
		if seq, ok := theirs[id]; !ok || seq < e.Seq {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b identity.ID) int {
		switch {
		case a == b:
			return 0
		case a == t.self:
			return -1
		case b == t.self:
			return 1
		}
		return a.Compare(b)
	})
	ids = ids[:min(len(ids), max(limit, 0))]
	out := make([]wire.Signed, 0, len(ids))
	for _, id := range ids {
		out = append(out, t.members[id].Signed)
	}
	return out
}
