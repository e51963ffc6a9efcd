package member

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
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
	defaultTombstone      = 24 * time.Hour
	defaultTombstoneBytes = 1 << 20
	defaultClone          = 30 * time.Minute
)

// ErrFull is returned, wrapped, when every member that could make room is connected.
var ErrFull = errors.New("member table is full")

// Limits bound a Table. Zero fields have defaults.
type Limits struct {
	Members        int           // members kept, at most and by default wire.MaxMembers
	Tombstones     int           // last records of members gone, likewise
	TombstoneBytes int           // of all of these together; default 1 MiB
	Expiry         time.Duration // without refresh and connection; default 1 h
	LeftExpiry     time.Duration // after a goodbye; default 1 min
	Tombstone      time.Duration // how long the gone are remembered; default 24 h
	Clone          time.Duration // how long a member counts as cloned after the last sign of it; default 30 min
}

func (l Limits) withDefaults() Limits {
	if l.Members <= 0 || l.Members > wire.MaxMembers {
		l.Members = wire.MaxMembers
	}
	if l.Tombstones <= 0 || l.Tombstones > wire.MaxMembers {
		l.Tombstones = wire.MaxMembers
	}
	if l.TombstoneBytes <= 0 {
		l.TombstoneBytes = defaultTombstoneBytes
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
	if l.Clone <= 0 {
		l.Clone = defaultClone
	}
	return l
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
	Evicted identity.ID // the member that made room, or zero
	// OtherRun: another run of the author wrote the record before. An author that
	// did not deliver this one may not know of it.
	OtherRun bool
}

// entry is one live member.
type entry struct {
	*Member
	refreshed time.Time // as Member.Refreshed, and while it is connected the last Expire
	since     time.Time // of the goodbye, when Left
	runs      runs
	check     uint32
}

// Table holds the members. It belongs to one goroutine at a time. The node's own
// record is merged like all others, but never expires and never makes room.
type Table struct {
	self   identity.ID
	limits Limits

	entries   []*entry // live, sorted by ID
	bytes     int      // of their signed records
	gone      graveyard
	connected map[identity.ID]bool // members or not
	revision  uint64               // of what is present
	version   uint64               // of the IDs and sequence numbers of the live

	snapshot *Snapshot // nil: to be made
	summary  wire.Summary
	summed   uint64 // the version that summary is of
}

// New makes an empty table for the node self.
func New(self identity.ID, limits Limits) *Table {
	return &Table{
		self: self, limits: limits.withDefaults(),
		gone: graveyard{stones: make(map[identity.ID]tombstone)}, connected: make(map[identity.ID]bool),
		summed: ^uint64(0),
	}
}

// find returns where the live member is in entries, or would be.
func (t *Table) find(id identity.ID) (int, bool) {
	return slices.BinarySearchFunc(t.entries, id, func(e *entry, id identity.ID) int { return e.ID.Compare(id) })
}

// Seq returns the sequence number of the newest record that is known of a member,
// live or gone.
func (t *Table) Seq(id identity.ID) (seq uint64, known bool) {
	if i, ok := t.find(id); ok {
		return t.entries[i].Seq, true
	}
	stone, ok := t.gone.stones[id]
	return stone.seq, ok
}

// Signed returns that record.
func (t *Table) Signed(id identity.ID) (wire.Signed, bool) {
	if i, ok := t.find(id); ok {
		return t.entries[i].Signed, true
	}
	stone, ok := t.gone.stones[id]
	return stone.signed, ok
}

// Bytes is the size of all live records together.
func (t *Table) Bytes() int { return t.bytes }

// Version changes with every live record.
func (t *Table) Version() uint64 { return t.version }

// News is what a record that may be false would be to a table.
type News int

// What it may be.
const (
	Newer News = iota // worth verifying
	Equal             // known, byte for byte
	Older
)

// Weigh compares a record, of which only the head was read, with what is known. Of
// two live records of one number, which only two machines with one key make, the
// greater one is newer, so that all tables end up with the same.
func (t *Table) Weigh(id identity.ID, seq uint64, s wire.Signed) News {
	known, any := t.Seq(id)
	switch {
	case !any || seq > known:
		return Newer
	case seq < known:
		return Older
	}
	held, _ := t.Signed(id)
	order := bytes.Compare(s, held)
	switch _, live := t.find(id); {
	case order == 0 || !live:
		return Equal
	case order > 0:
		return Newer
	}
	return Older
}

// Merge takes in a record, whoever delivered it. What is not newer than what is
// known is Unchanged. When the table is full, the unconnected member that was
// silent for longest makes room; ErrFull if there is none.
func (t *Table) Merge(v Verified, now time.Time) (Change, error) {
	id, change := v.record.ID, Change{ID: v.record.ID}
	if t.Weigh(id, v.record.Seq, v.signed) != Newer {
		return change, nil
	}
	i, exists := t.find(id)
	if !exists && len(t.entries) >= t.limits.Members {
		if v.record.Left || !t.evict(&change) { // nobody makes room for who is leaving
			return Change{}, fmt.Errorf("merge record of %s: %w", id.Short(), ErrFull)
		}
		i, _ = t.find(id)
	}
	e := &entry{Member: &Member{Record: v.record, Signed: v.signed, Refreshed: now}, refreshed: now, check: v.check}
	if v.record.Left {
		e.since = now
	}
	change.Kind = Added
	visible := !v.record.Left
	if exists {
		old := t.entries[i]
		change.Kind, change.OtherRun = kindOf(old.Record, v.record), old.Run != v.record.Run
		visible = visible && change.Kind != Refreshed || change.Kind == Left
		if old.Left && v.record.Left {
			e.since = old.since // repeating a goodbye does not prolong it
		}
		e.runs, e.Cloned = old.runs, old.Cloned
		t.bytes -= len(old.Signed)
		t.entries[i] = e
	} else {
		if v.record.Left {
			change.Kind = Left
		}
		t.entries = slices.Insert(t.entries, i, e)
		t.gone.dig(id)
	}
	t.bytes += len(v.signed)
	if t.mark(e, now) {
		visible = true
	}
	t.touch(visible)
	return change, nil
}

// touch notes that live records changed, and whether in a way that is to be seen.
func (t *Table) touch(visible bool) {
	t.version++
	t.snapshot = nil
	if visible {
		t.revision++
	}
}

// kindOf tells what a newer record of a live member means.
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

// evict removes the unconnected member that was silent for longest, and says
// whom. It leaves no tombstone: nothing says that the member is gone.
func (t *Table) evict(change *Change) bool {
	victim := -1
	for i, e := range t.entries {
		if e.ID == t.self || t.connected[e.ID] {
			continue
		}
		if victim < 0 || e.refreshed.Before(t.entries[victim].refreshed) {
			victim = i
		}
	}
	if victim < 0 {
		return false
	}
	change.Evicted = t.entries[victim].ID
	t.remove(victim)
	return true
}

func (t *Table) remove(i int) {
	e := t.entries[i]
	t.entries = slices.Delete(t.entries, i, i+1)
	t.bytes -= len(e.Signed)
	t.touch(!e.Left) // who left is not to be seen any more
}
