package member

import (
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Run names one run of the author's process, see wire.Record.
type Run = [wire.RunSize]byte

// Implementation constants.
const (
	runsKept = 4 // so many machines may share a key and be found
	// An author that lost its state looks like this for a moment, to who hears its
	// first record, then that of its earlier life, then the one that jumps over it:
	// one run that comes back. Clones go on.
	comebacks = 2
)

// runs is what the records of a member tell of its runs.
type runs struct {
	last  []Run     // the newest first
	back  int       // how often a run came back after another one's record
	since time.Time // of the last time
}

// mark notes the run of an entry's record, and reports whether the member counts
// as cloned from now on. Of one process's records the next is always by the same
// run, and a run that was replaced has ended: if it goes on all the same, two
// machines hold the key.
func (t *Table) mark(e *entry, now time.Time) bool {
	r, run := &e.runs, e.Run
	if run != (Run{}) && (len(r.last) == 0 || r.last[0] != run) {
		if slices.Contains(r.last, run) {
			r.back, r.since = r.back+1, now
		}
		last := slices.DeleteFunc(slices.Clone(r.last), func(o Run) bool { return o == run })
		r.last = append([]Run{run}, last[:min(len(last), runsKept-1)]...)
	}
	if r.back < comebacks {
		return false
	}
	was := e.Cloned
	e.Cloned = true // nobody has seen this Member yet
	return !was
}

// unmark ends what mark found, a while after its last sign.
func (t *Table) unmark(e *entry, now time.Time) {
	if e.runs.back == 0 || now.Sub(e.runs.since) < t.limits.Clone {
		return
	}
	e.runs.back = 0
	if e.Cloned {
		t.replace(e, func(m *Member) { m.Cloned = false })
		t.revision++
	}
}

// SetCloned marks a member for other reasons than its records, for Limits.Clone.
func (t *Table) SetCloned(id identity.ID, now time.Time) {
	i, ok := t.find(id)
	if !ok {
		return
	}
	e := t.entries[i]
	e.runs.back, e.runs.since = max(e.runs.back, comebacks), now
	if !e.Cloned {
		t.replace(e, func(m *Member) { m.Cloned = true })
		t.revision++
	}
}
