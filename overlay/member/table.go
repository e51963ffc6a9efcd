package member

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Implementation constants: the defaults of Limits, and what they go with.
const (
	// Refresh is how often an author renews its own record.
	Refresh = 10 * time.Minute

	defaultExpiry     = time.Hour // six missed refreshes
	defaultLeftExpiry = time.Minute
	// Everybody's Expiry is over by then, also that of nodes that joined late
	// and heard of the member from others.
	defaultTombstone = 24 * time.Hour
)

// ErrFull is returned, wrapped, when every member that could make room is connected.
var ErrFull = errors.New("member table is full")

// Limits bound a Table. Zero fields have defaults.
type Limits struct {
	Members    int           // members kept, at most and by default wire.MaxMembers
	Tombstones int           // sequence numbers of members gone, likewise
	Expiry     time.Duration // without refresh and connection; default 1 h
	LeftExpiry time.Duration // after a goodbye; default 1 min
	Tombstone  time.Duration // how long the gone are remembered; default 24 h
}

// Kind is what a Merge did.
type Kind int

// Kinds of changes.
const (
	Unchanged Kind = iota // known already, or older than what is known
	Added                 // a new member
	Updated               // a member says something else than before
	Refreshed             // a member says the same again: pass it on, nothing else
	Left                  // a member said goodbye
)

// String names the kind for logs and tests.
func (k Kind) String() string {
	names := [...]string{"unchanged", "added", "updated", "refreshed", "left"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return names[k]
}

// Change is the outcome of a Merge.
type Change struct {
	Kind    Kind
	ID      identity.ID // the author
	Record  wire.Record // valid unless Unchanged
	Evicted identity.ID // the member that made room, or zero
}

// Member is one member as this node knows it. It shares memory with the Table
// and must not be modified.
type Member struct {
	wire.Record
	Signed    wire.Signed
	Refreshed time.Time // when the newest record came, or the connection was last seen
	Connected bool      // as last told by Expire or SetConnected
}

type entry struct {
	Member
	since time.Time // of the goodbye, when Left
}

type tombstone struct {
	seq  uint64
	when time.Time
}

// Table holds the members. It is safe for concurrent use. The node's own record
// is merged like all others, but never expires and never makes room.
type Table struct {
	self   identity.ID
	limits Limits

	mu         sync.Mutex // protects what follows
	members    map[identity.ID]*entry
	tombstones map[identity.ID]tombstone
	revision   uint64
}

// New makes an empty table for the node self.
func New(self identity.ID, limits Limits) *Table {
	return &Table{
		self:       self,
		limits:     limits.withDefaults(),
		members:    make(map[identity.ID]*entry),
		tombstones: make(map[identity.ID]tombstone),
	}
}

func (l Limits) withDefaults() Limits {
	if l.Members <= 0 || l.Members > wire.MaxMembers {
		l.Members = wire.MaxMembers
	}
	if l.Tombstones <= 0 || l.Tombstones > wire.MaxMembers {
		l.Tombstones = wire.MaxMembers
	}
	if l.Expiry <= 0 {
		l.Expiry = defaultExpiry
	}
	if l.LeftExpiry <= 0 {
		l.LeftExpiry = defaultLeftExpiry
	}
	if l.Tombstone <= 0 {
		l.Tombstone = defaultTombstone
	}
	return l
}

// Merge takes in a record, whoever delivered it. What is not newer than what is
// known is Unchanged, and cheap; anything else must verify (errors of wire.Open).
// When the table is full, the unconnected member that was silent for longest
// makes room; ErrFull if there is none. Change.Record may be the node's own,
// with a sequence number that it does not remember: then it must publish with a
// higher one. The table keeps a copy of s.
func (t *Table) Merge(s wire.Signed, now time.Time) (Change, error) {
	id, seq, ok := s.Head()
	if ok && t.known(id, seq) {
		return Change{Kind: Unchanged, ID: id}, nil
	}
	// Verifying is the expensive part: not under the lock.
	record, err := wire.Open(s)
	if err != nil {
		return Change{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mergeLocked(record, s, now)
}

func (t *Table) known(id identity.ID, seq uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.knownLocked(id, seq)
}

func (t *Table) knownLocked(id identity.ID, seq uint64) bool {
	if e, ok := t.members[id]; ok {
		return seq <= e.Seq
	}
	gone, ok := t.tombstones[id]
	return ok && seq <= gone.seq
}

func (t *Table) mergeLocked(r wire.Record, s wire.Signed, now time.Time) (Change, error) {
	change := Change{ID: r.ID, Record: r}
	old, exists := t.members[r.ID]
	switch {
	case t.knownLocked(r.ID, r.Seq): // somebody was faster
		return Change{Kind: Unchanged, ID: r.ID}, nil
	case !exists && len(t.members) >= t.limits.Members:
		evicted, ok := identity.ID{}, false
		if !r.Left { // nobody makes room for who is leaving
			evicted, ok = t.evictLocked()
		}
		if !ok {
			return Change{}, fmt.Errorf("merge record of %s: %w", r.ID.Short(), ErrFull)
		}
		change.Evicted = evicted
	}
	e := &entry{Member: Member{Record: r, Signed: bytes.Clone(s), Refreshed: now}}
	change.Kind = Added
	if exists {
		e.Connected = old.Connected
		change.Kind = kindOf(old.Record, r)
	} else if r.Left {
		change.Kind = Left
	}
	if r.Left {
		e.since = now
		if exists && old.Left {
			e.since = old.since // repeating a goodbye does not prolong it
		}
	}
	t.members[r.ID] = e
	delete(t.tombstones, r.ID)
	visible := !r.Left || (exists && !old.Left)
	if (visible && change.Kind != Refreshed) || !change.Evicted.IsZero() {
		t.revision++
	}
	return change, nil
}

// kindOf tells what a newer record of a present member means.
func kindOf(old, now wire.Record) Kind {
	switch {
	case now.Left && !old.Left:
		return Left
	case now.Left:
		return Refreshed
	case old.Left:
		return Added
	case old.Same(now):
		return Refreshed
	}
	return Updated
}

// evictLocked removes the unconnected member that was silent for longest. It
// leaves no tombstone: nothing says that the member is gone.
func (t *Table) evictLocked() (identity.ID, bool) {
	var victim *entry
	for _, e := range t.members {
		if e.ID == t.self || e.Connected {
			continue
		}
		if victim == nil || older(e, victim) {
			victim = e
		}
	}
	if victim == nil {
		return identity.ID{}, false
	}
	delete(t.members, victim.ID)
	return victim.ID, true
}

// older orders by silence, and by ID where that is equal.
func older(a, b *entry) bool {
	if !a.Refreshed.Equal(b.Refreshed) {
		return a.Refreshed.Before(b.Refreshed)
	}
	return a.ID.Compare(b.ID) < 0
}

// Get returns a present member; one that left is not present.
func (t *Table) Get(id identity.ID) (Member, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.members[id]; ok && !e.Left {
		return e.Member, true
	}
	return Member{}, false
}

// List returns the present members, this node included, sorted by ID.
func (t *Table) List() []Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Member, 0, len(t.members))
	for _, e := range t.members {
		if !e.Left {
			out = append(out, e.Member)
		}
	}
	slices.SortFunc(out, func(a, b Member) int { return a.ID.Compare(b.ID) })
	return out
}

// Revision grows with every change that List shows, refreshes aside.
func (t *Table) Revision() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.revision
}
