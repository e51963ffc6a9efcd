package member

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/wire"
)

func TestCompare(t *testing.T) {
	table := newTable(t, Limits{})
	id := func(n int) identity.ID { return testKey(t, n).ID() }
	for n := range 5 {
		mustMerge(t, table, record(t, n, 5), start)
	}
	mustMerge(t, table, record(t, 4, 6, left), start)
	for n := 10; n < 13; n++ { // are gone: 11 with a goodbye
		mustMerge(t, table, record(t, n, 5), at(-3*time.Hour))
	}
	mustMerge(t, table, record(t, 11, 6, left), at(-2*time.Hour))
	table.Expire(start)
	for _, c := range []struct {
		name            string
		peer            int
		theirs          map[int]uint64
		missing, wanted []int
	}{
		{"nothing", 1, nil, []int{0, 1, 2, 3, 4}, nil},
		{"equal", 1, map[int]uint64{0: 5, 1: 5, 2: 5, 3: 5, 4: 6}, nil, nil},
		{"older and newer", 1, map[int]uint64{0: 5, 1: 4, 2: 7, 3: 5, 4: 5, 77: 1}, []int{1, 4}, []int{2, 77}},
		{"gone here", 1, map[int]uint64{0: 5, 1: 5, 2: 5, 3: 5, 4: 6, 10: 5, 12: 4}, nil, nil},
		{"gone here and back", 1, map[int]uint64{0: 5, 1: 5, 2: 5, 3: 5, 4: 6, 10: 6}, nil, []int{10}},
		{"a goodbye was missed", 1, map[int]uint64{0: 5, 1: 5, 2: 5, 3: 5, 4: 6, 11: 5}, []int{11}, nil},
		{"the peer itself is behind its last record", 12, map[int]uint64{0: 5, 1: 5, 2: 5, 3: 5, 4: 6, 12: 1}, []int{12}, nil},
	} {
		entries := make([]wire.Entry, 0, len(c.theirs))
		for n, seq := range c.theirs {
			e := wire.Entry{ID: id(n), Seq: seq}
			if i, ok := table.find(id(n)); ok {
				e.Check = table.entries[i].check
			}
			entries = append(entries, e)
		}
		slices.SortFunc(entries, func(a, b wire.Entry) int { return a.ID.Compare(b.ID) })
		for _, cut := range []identity.ID{{}, id(2)} { // whole, and in two parts
			parts := []wire.Digest{{Entries: entries}}
			if !cut.IsZero() {
				i, _ := slices.BinarySearchFunc(entries, cut, func(e wire.Entry, id identity.ID) int { return e.ID.Compare(id) })
				if i < len(entries) && entries[i].ID == cut {
					i++
				}
				parts = []wire.Digest{{Last: cut, Entries: entries[:i]}, {After: cut, Entries: entries[i:]}}
			}
			var missing, wanted []identity.ID
			for _, d := range parts {
				diff := table.Compare(id(c.peer), d)
				missing, wanted = append(missing, diff.Missing...), append(wanted, diff.Wanted...)
			}
			if !sameIDs(t, missing, c.missing) || !sameIDs(t, wanted, c.wanted) {
				t.Errorf("%s: %d missing, want %v; %d wanted, want %v", c.name, len(missing), c.missing, len(wanted), c.wanted)
			}
		}
	}
}

// Two records of one number, which two machines with one key make: all tables end
// up with the same one, and comparing finds them.
func TestRecordsOfOneNumber(t *testing.T) {
	x, y := record(t, 1, 5, note("x")), record(t, 1, 5, note("y"))
	one, other := newTable(t, Limits{}), New(testKey(t, 7).ID(), Limits{})
	mustMerge(t, one, x, start)
	mustMerge(t, other, y, start)
	if one.Summary() == other.Summary() {
		t.Fatal("the summaries are equal")
	}
	for _, pair := range [][2]*Table{{one, other}, {other, one}} {
		diff := pair[0].Compare(testKey(t, 2).ID(), pair[1].Digests()[0])
		if len(diff.Missing) != 1 || len(diff.Wanted) != 0 {
			t.Errorf("%d missing and %d wanted, want what this table has", len(diff.Missing), len(diff.Wanted))
		}
	}
	kinds := map[Kind]int{}
	for range 2 {
		kinds[mustMerge(t, one, y, start).Kind]++
		kinds[mustMerge(t, other, x, start).Kind]++
	}
	if one.Summary() != other.Summary() || kinds[Updated] != 1 || kinds[Unchanged] != 3 {
		t.Errorf("changes %v", kinds)
	}
}

func sameIDs(t *testing.T, got []identity.ID, want []int) bool {
	t.Helper()
	return len(got) == len(want) && !slices.ContainsFunc(want, func(n int) bool { return !slices.Contains(got, testKey(t, n).ID()) })
}

// A table over the limits of a message is in several digests, which together are one.
func TestDigestsSplit(t *testing.T) {
	table := newTable(t, Limits{})
	const n = 2*wire.MaxDigest + 10
	for i := range n {
		e := &entry{Member: &Member{Record: wire.Record{Seq: 1}}}
		binary.BigEndian.PutUint32(e.ID[:], uint32(i+1))
		table.entries = append(table.entries, e)
	}
	parts := table.Digests()
	if len(parts) != 3 || len(known(table)) != n {
		t.Fatalf("%d digests of %d members", len(parts), len(known(table)))
	}
	for i, d := range parts {
		if _, err := wire.AppendMessage(nil, d); err != nil {
			t.Error(err)
		}
		if diff := table.Compare(identity.ID{}, d); len(diff.Missing)+len(diff.Wanted) != 0 {
			t.Errorf("part %d differs from its own table", i)
		}
		d.Entries = d.Entries[1:]
		if diff := table.Compare(identity.ID{}, d); len(diff.Missing) != 1 {
			t.Errorf("part %d: %d missing, want 1", i, len(diff.Missing))
		}
	}
}

func TestSummary(t *testing.T) {
	a, b := newTable(t, Limits{}), New(testKey(t, 7).ID(), Limits{})
	for n := range 5 {
		mustMerge(t, a, record(t, n, 5), start)
		mustMerge(t, b, record(t, 4-n, 4), start)
	}
	if a.Summary() == b.Summary() {
		t.Error("equal in spite of older records")
	}
	for n := range 5 {
		mustMerge(t, b, record(t, n, 5), start)
	}
	mustMerge(t, b, record(t, 9, 5), at(-2*time.Hour))
	b.Expire(start)
	if a.Summary() != b.Summary() {
		t.Error("differ in spite of the same live records")
	}
}

// Whatever the order and the duplicates, and by whatever exchange of digests,
// all tables end up with the same records.
func TestConvergence(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	tables := make([]*Table, 5)
	for i := range tables {
		tables[i] = New(testKey(t, i).ID(), Limits{})
	}
	for n := range 20 {
		for seq := range uint64(5) {
			s := record(t, n, seq, note(fmt.Sprint(seq)))
			for range 2 {
				mustMerge(t, tables[rng.IntN(len(tables))], s, start)
			}
		}
	}
	for range 3 * len(tables) {
		for i, a := range tables {
			b := tables[(i+1)%len(tables)]
			for _, d := range b.Digests() {
				missing := a.Compare(b.self, d).Missing
				for _, id := range missing[:min(len(missing), 7)] {
					s, _ := a.Signed(id)
					mustMerge(t, b, s, start)
				}
			}
		}
	}
	want := known(tables[0])
	if len(want) != 20 {
		t.Fatalf("%d members", len(want))
	}
	for i, table := range tables {
		if !reflect.DeepEqual(known(table), want) || table.Summary() != tables[0].Summary() {
			t.Errorf("table %d differs", i)
		}
		for _, m := range list(table) {
			if m.Seq != 4 || m.Annotations["note"] != "4" {
				t.Errorf("table %d has an old record", i)
			}
		}
	}
}
