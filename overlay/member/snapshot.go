package member

import (
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Member is one member as this node knows it. It never changes: it is shared by
// the table and everybody who reads.
type Member struct {
	wire.Record
	Signed    wire.Signed
	Refreshed time.Time // when the newest record came, or the connection ended
	Cloned    bool      // two machines speak with this member's key
}

// Snapshot is the present members at one moment. It never changes, so that any
// number of goroutines may read it. The zero Snapshot is empty.
type Snapshot struct {
	members  []*Member
	revision uint64
}

// List returns the present members, this node included, sorted by ID. The slice
// is shared by all readers and must not be modified.
func (s *Snapshot) List() []*Member { return s.members }

// Get returns a present member; one that left is not present.
func (s *Snapshot) Get(id identity.ID) (*Member, bool) {
	i, found := slices.BinarySearchFunc(s.members, id, func(m *Member, id identity.ID) int { return m.ID.Compare(id) })
	if !found {
		return nil, false
	}
	return s.members[i], true
}

// Revision grows with every change that List shows, refreshes aside.
func (s *Snapshot) Revision() uint64 { return s.revision }

// Snapshot returns the present members. It makes a new one only if something
// changed since the last, and then copies one pointer for each member. A change
// that Revision does not show, as a refresh, is in it too.
func (t *Table) Snapshot() *Snapshot {
	if t.snapshot != nil {
		return t.snapshot
	}
	s := &Snapshot{members: make([]*Member, 0, len(t.entries)), revision: t.revision}
	for _, e := range t.entries {
		if !e.Left {
			s.members = append(s.members, e.Member)
		}
	}
	t.snapshot = s
	return s
}

// Revision is that of the next Snapshot.
func (t *Table) Revision() uint64 { return t.revision }
