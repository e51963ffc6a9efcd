package slots

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kairos-io/kairos/overlay/keepjson"
)

// Slot is one of the two places for an operating system.
type Slot int

// The slots.
const (
	A Slot = iota
	B
)

// String returns the slot's letter, as in the partitions' labels.
func (s Slot) String() string { return string(rune('a' + int(s))) }

// Other returns the slot that s is not.
func (s Slot) Other() Slot { return 1 - s }

// RootLabel returns the name of the slot's root partition.
func (s Slot) RootLabel() string { return "kairos-root-" + s.String() }

// VerityLabel returns the name of the partition with the root's hash tree.
func (s Slot) VerityLabel() string { return "kairos-verity-" + s.String() }

// Labels of the partitions that do not belong to a slot.
const (
	ESPLabel  = "kairos-esp"
	DataLabel = "kairos-data"
)

// State is what a slot is at the moment.
type State string

// The states. Exactly one slot is Booted; the other is one of the rest.
const (
	Booted   State = "booted"
	Staged   State = "staged"   // boots next
	Rollback State = "rollback" // whole, but the booted one comes first
	Failed   State = "failed"   // has no tries left
	Empty    State = "empty"    // nothing that could be booted
)

// Record says what was written to a slot: nothing here decides what boots. An
// upgrade must not be older than what the booted slot's says.
type Record struct {
	Image      string    `json:"image"`  // reference that it came from
	Digest     string    `json:"digest"` // of the index that the reference meant
	Version    string    `json:"version"`
	Flavour    string    `json:"flavour,omitempty"`
	K3s        string    `json:"k3s,omitempty"` // as the release says
	RootHash   string    `json:"root_hash"`
	Created    time.Time `json:"created,omitzero"` // of the release, as it says
	Generation uint64    `json:"generation"`
	StagedAt   time.Time `json:"staged_at"` // by the wall clock: shown, never compared

	unknown keepjson.Unknown // what a later version wrote
}

// Records is slots.json.
type Records struct {
	A *Record `json:"a,omitempty"`
	B *Record `json:"b,omitempty"`

	unknown keepjson.Unknown
}

// Of returns the record of a slot; nil when there is none.
func (r Records) Of(s Slot) *Record {
	if s == A {
		return r.A
	}
	return r.B
}

// With returns the records with another one for s; nil removes it.
func (r Records) With(s Slot, rec *Record) Records {
	if s == A {
		r.A = rec
	} else {
		r.B = rec
	}
	return r
}

// Facts is everything that decides what the slots are.
type Facts struct {
	RootHash   string // of the running system, from the kernel's command line
	Partitions []Partition
	Entries    []Entry
	Lost       []string // files in the ESP's root that fsck made of what belonged to no file
	Records    Records
}

// View is one slot as it is.
type View struct {
	Slot         Slot
	State        State
	RootHash     string // of the system in it; "" when it is empty
	Entry        *Entry // that boots it; nil when there is none
	Record       *Record
	Root, Verity Partition
}

// Status is the machine as it is.
type Status struct {
	Booted, Other View
}

// Trial reports whether the running system is not yet known to be good.
func (s Status) Trial() bool { return s.Booted.Entry != nil && s.Booted.Entry.Counted }

// ErrLayout: the disk is not one that this package can write to.
var ErrLayout = errors.New("not the disk of a machine with two slots")

// UUIDs returns what the UUIDs of the root and the verity partition of a system
// with this root hash are.
func UUIDs(rootHash string) (root, verity UUID, err error) {
	raw, err := hex.DecodeString(rootHash)
	if err != nil || len(raw) != 2*len(root) {
		return root, verity, fmt.Errorf("root hash %q is not 64 hexadecimal digits", rootHash)
	}
	copy(root[:], raw)
	copy(verity[:], raw[len(root):])
	return root, verity, nil
}

// Inspect finds out what the slots are.
func Inspect(f Facts) (Status, error) {
	views := [2]View{}
	for _, s := range []Slot{A, B} {
		v, err := inspectSlot(f, s)
		if err != nil {
			return Status{}, err
		}
		views[s] = v
	}
	for _, s := range []Slot{A, B} {
		if views[s].RootHash != f.RootHash {
			continue
		}
		if views[s.Other()].RootHash == f.RootHash {
			return Status{}, fmt.Errorf("%w: both slots are said to hold the running system", ErrLayout)
		}
		st := Status{views[s], views[s.Other()]}
		st.Booted.State, st.Other.State = Booted, otherState(st)
		if st.Other.State == Empty {
			st.Other.RootHash, st.Other.Record = "", nil
		}
		return st, nil
	}
	return Status{}, fmt.Errorf("%w: neither slot holds the running system", ErrLayout)
}

func inspectSlot(f Facts, s Slot) (View, error) {
	v := View{Slot: s}
	for _, want := range []struct {
		label string
		into  *Partition
	}{{s.RootLabel(), &v.Root}, {s.VerityLabel(), &v.Verity}} {
		var found []Partition
		for _, p := range f.Partitions {
			if p.Label == want.label {
				found = append(found, p)
			}
		}
		if len(found) != 1 {
			return View{}, fmt.Errorf("%w: it has %d partitions called %s", ErrLayout, len(found), want.label)
		}
		*want.into = found[0]
	}
	v.RootHash = hex.EncodeToString(v.Root.UUID[:]) + hex.EncodeToString(v.Verity.UUID[:])
	own := slices.DeleteFunc(slices.Clone(f.Entries), func(e Entry) bool { return e.RootHash != v.RootHash })
	if len(own) > 0 {
		first := slices.MinFunc(own, Compare)
		v.Entry = &first
	}
	if r := f.Records.Of(s); r != nil && r.RootHash == v.RootHash {
		v.Record = r
	}
	return v, nil
}

func otherState(st Status) State {
	switch {
	case st.Other.Entry == nil:
		return Empty
	case st.Other.Entry.Exhausted():
		return Failed
	case st.Booted.Entry == nil || Compare(*st.Other.Entry, *st.Booted.Entry) < 0:
		return Staged
	default:
		return Rollback
	}
}

// nextGeneration is above all that were ever given, whether their files are left or not.
func nextGeneration(f Facts) uint64 {
	var last uint64
	for _, e := range f.Entries {
		last = max(last, e.Generation)
	}
	for _, r := range []*Record{f.Records.A, f.Records.B} {
		if r != nil {
			last = max(last, r.Generation)
		}
	}
	return last + 1
}

// RootHashOf returns the roothash= of a kernel's command line, "" when there is none.
func RootHashOf(cmdline string) string {
	out := ""
	for _, word := range strings.Fields(cmdline) {
		if v, ok := strings.CutPrefix(word, "roothash="); ok {
			out = strings.ToLower(v) // the last one counts, as for systemd
		}
	}
	return out
}
