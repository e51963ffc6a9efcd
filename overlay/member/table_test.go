package member

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/wire"
)

// start is the beginning of all tests; only differences matter.
var start = time.Now()

func at(d time.Duration) time.Time { return start.Add(d) }

func testKey(t testing.TB, n int) identity.Key {
	t.Helper()
	seed := make([]byte, 32)
	binary.BigEndian.PutUint64(seed, uint64(n))
	key, err := identity.Generate(bytes.NewReader(seed))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

type say func(*wire.Record)

func left(r *wire.Record) { r.Left = true }

func note(text string) say {
	return func(r *wire.Record) { r.Annotations = map[string]string{"note": text} }
}

func record(t testing.TB, n int, seq uint64, says ...say) wire.Signed {
	t.Helper()
	r := wire.Record{Seq: seq, Name: fmt.Sprintf("n%d", n), Kind: wire.KindNode}
	for _, s := range says {
		s(&r)
	}
	s, err := wire.Seal(testKey(t, n), r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// get and list look into a snapshot.
func get(table *Table, id identity.ID) (*Member, bool) { return table.Snapshot().Get(id) }

func list(table *Table) []*Member { return table.Snapshot().List() }

// known is the table's digest as a map.
func known(table *Table) map[identity.ID]uint64 {
	out := make(map[identity.ID]uint64)
	for _, d := range table.Digests() {
		for _, e := range d.Entries {
			out[e.ID] = e.Seq
		}
	}
	return out
}

func newTable(t testing.TB, limits Limits) *Table {
	t.Helper()
	return New(testKey(t, 0).ID(), limits)
}

// merge verifies and merges.
func merge(table *Table, s wire.Signed, now time.Time) (Change, error) {
	v, err := Verify(s)
	if err != nil {
		return Change{}, err
	}
	return table.Merge(v, now)
}

func mustMerge(t testing.TB, table *Table, s wire.Signed, now time.Time) Change {
	t.Helper()
	c, err := merge(table, s, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMergeSequence(t *testing.T) {
	for _, c := range []struct {
		name    string
		records []wire.Signed
		want    []Kind
		present bool
		changes uint64
	}{
		{"new", []wire.Signed{record(t, 1, 5)}, []Kind{Added}, true, 1},
		{"same twice", []wire.Signed{record(t, 1, 5), record(t, 1, 5)}, []Kind{Added, Unchanged}, true, 1},
		{"older after newer", []wire.Signed{record(t, 1, 5, note("new")), record(t, 1, 4, note("old"))}, []Kind{Added, Unchanged}, true, 1},
		{"refreshed", []wire.Signed{record(t, 1, 5, note("x")), record(t, 1, 6, note("x"))}, []Kind{Added, Refreshed}, true, 1},
		{"updated", []wire.Signed{record(t, 1, 5), record(t, 1, 9, note("x"))}, []Kind{Added, Updated}, true, 2},
		{"left", []wire.Signed{record(t, 1, 5), record(t, 1, 6, left)}, []Kind{Added, Left}, false, 2},
		{"left twice", []wire.Signed{record(t, 1, 5), record(t, 1, 6, left), record(t, 1, 7, left)}, []Kind{Added, Left, Refreshed}, false, 2},
		{"left before it was known", []wire.Signed{record(t, 1, 6, left), record(t, 1, 5)}, []Kind{Left, Unchanged}, false, 0},
		{"back", []wire.Signed{record(t, 1, 5), record(t, 1, 6, left), record(t, 1, 7)}, []Kind{Added, Left, Added}, true, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := newTable(t, Limits{})
			var kinds []Kind
			for _, s := range c.records {
				change := mustMerge(t, table, s, start)
				if change.ID != testKey(t, 1).ID() {
					t.Errorf("change of %s", change.ID.Short())
				}
				kinds = append(kinds, change.Kind)
			}
			if !reflect.DeepEqual(kinds, c.want) {
				t.Errorf("kinds %v, want %v", kinds, c.want)
			}
			if _, ok := get(table, testKey(t, 1).ID()); ok != c.present || len(list(table)) == 1 != c.present {
				t.Errorf("present: %v, want %v", ok, c.present)
			}
			if table.Revision() != c.changes {
				t.Errorf("revision %d, want %d", table.Revision(), c.changes)
			}
		})
	}
}

func TestMergeRefusesForgery(t *testing.T) {
	table := newTable(t, Limits{})
	mustMerge(t, table, record(t, 1, 5), start)
	forged := bytes.Clone(record(t, 1, 6))
	forged[len(forged)-1] ^= 1
	if _, err := merge(table, forged, start); !errors.Is(err, wire.ErrSignature) {
		t.Errorf("forged: %v", err)
	}
	if _, err := merge(table, wire.Signed("short"), start); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("short: %v", err)
	}
	if m, ok := get(table, testKey(t, 1).ID()); !ok || m.Seq != 5 {
		t.Errorf("sequence %d", m.Seq)
	}
}

// The table must not hold on to the message that a record came in.
func TestMergeCopies(t *testing.T) {
	table := newTable(t, Limits{})
	s := bytes.Clone(record(t, 1, 5))
	mustMerge(t, table, s, start)
	clear(s)
	m, _ := get(table, testKey(t, 1).ID())
	if _, err := wire.Open(m.Signed); err != nil {
		t.Errorf("changed from outside: %v", err)
	}
}

func TestExpire(t *testing.T) {
	table := newTable(t, Limits{})
	for n := range 4 {
		mustMerge(t, table, record(t, n, 1), start)
	}
	mustMerge(t, table, record(t, 3, 2, left), at(30*time.Minute))
	table.SetConnected(testKey(t, 1).ID(), true, start)
	for _, c := range []struct {
		after time.Duration
		gone  []int
	}{
		{time.Minute, nil},
		{30*time.Minute + 59*time.Second, nil},
		{31 * time.Minute, []int{3}}, // a minute after its goodbye
		{time.Hour - time.Second, nil},
		{time.Hour, []int{2}},      // 0 is this node, 1 is connected
		{100 * time.Hour, []int{}}, // still
	} {
		before := table.Revision()
		gone := table.Expire(at(c.after))
		if len(gone) != len(c.gone) || (len(gone) == 1 && gone[0] != testKey(t, c.gone[0]).ID()) {
			t.Errorf("after %v: %d gone, want %v", c.after, len(gone), c.gone)
		}
		if c.after == time.Hour && table.Revision() == before {
			t.Error("a member vanished without a new revision")
		}
	}
	if len(list(table)) != 2 {
		t.Errorf("%d members left", len(list(table)))
	}
	// The connection was alive until now: a full hour starts when it ends.
	table.SetConnected(testKey(t, 1).ID(), false, at(100*time.Hour))
	if gone := table.Expire(at(100*time.Hour + 59*time.Minute)); len(gone) != 0 {
		t.Error("gone right after the connection")
	}
	if gone := table.Expire(at(101 * time.Hour)); len(gone) != 1 {
		t.Errorf("%d gone", len(gone))
	}
}

func TestRefreshKeepsAlive(t *testing.T) {
	table := newTable(t, Limits{})
	for i := range 100 {
		now := at(time.Duration(i) * Refresh)
		mustMerge(t, table, record(t, 1, uint64(i)), now)
		if gone := table.Expire(now); len(gone) != 0 {
			t.Fatalf("expired although refreshed, after %d", i)
		}
	}
}

// A repeated goodbye does not keep a member around.
func TestGoodbyeIsNotProlonged(t *testing.T) {
	table := newTable(t, Limits{})
	mustMerge(t, table, record(t, 1, 1, left), start)
	mustMerge(t, table, record(t, 1, 2, left), at(50*time.Second))
	table.SetConnected(testKey(t, 1).ID(), true, start)
	if gone := table.Expire(at(time.Minute)); len(gone) != 1 {
		t.Error("still there")
	}
}

// What is gone does not come back by itself, its author may, and it is in no digest.
func TestTombstones(t *testing.T) {
	table, id := newTable(t, Limits{Tombstones: 10}), testKey(t, 1).ID()
	old := record(t, 1, 5)
	mustMerge(t, table, old, start)
	table.Expire(at(2 * time.Hour))
	if c := mustMerge(t, table, old, at(2*time.Hour)); c.Kind != Unchanged || len(list(table)) != 0 {
		t.Error("an expired record came back")
	}
	if len(known(table)) != 0 || table.Summary().Count != 0 {
		t.Error("who is gone takes part in comparisons")
	}
	if s, ok := table.Signed(id); !ok || !bytes.Equal(s, old) {
		t.Error("the last record is lost: nobody could show it to an author that forgot it")
	}
	if c := mustMerge(t, table, record(t, 1, 6), at(2*time.Hour)); c.Kind != Added {
		t.Errorf("the member itself cannot come back: %v", c.Kind)
	}
	table.Expire(at(4 * time.Hour))
	table.Expire(at(28 * time.Hour))
	if _, known := table.Seq(id); known {
		t.Error("the gone are remembered forever")
	}
}

// Neither number nor size of tombstones grows, and none is there without its record.
func TestTombstonesAreBounded(t *testing.T) {
	big := func(r *wire.Record) {
		r.Annotations = map[string]string{}
		for i := range 7 {
			r.Annotations[fmt.Sprint(i)] = strings.Repeat("x", wire.MaxAnnotationValue)
		}
	}
	for name, c := range map[string]struct {
		limits Limits
		say    say
		most   int
	}{
		"number": {Limits{Tombstones: 10}, func(*wire.Record) {}, 10},
		"size":   {Limits{TombstoneBytes: 40 << 10}, big, 5},
	} {
		t.Run(name, func(t *testing.T) {
			table := newTable(t, c.limits)
			for n := 1; n <= 30; n++ {
				now := at(time.Duration(n) * 2 * time.Second)
				mustMerge(t, table, record(t, n, 10, c.say), now)
				table.Expire(now.Add(time.Hour))
			}
			found, size := 0, 0
			for n := 1; n <= 30; n++ {
				if s, ok := table.Signed(testKey(t, n).ID()); ok {
					found, size = found+1, size+len(s)
				}
			}
			if _, known := table.Seq(testKey(t, 30).ID()); found != c.most || !known || size != table.gone.bytes {
				t.Errorf("%d tombstones of %d bytes, want the last %d of %d", found, table.gone.bytes, c.most, size)
			}
		})
	}
}

func TestCap(t *testing.T) {
	table := newTable(t, Limits{Members: 4})
	for n := range 4 { // 0 is this node
		mustMerge(t, table, record(t, n, 1), at(time.Duration(n)*time.Second))
	}
	table.SetConnected(testKey(t, 1).ID(), true, at(time.Second))
	c := mustMerge(t, table, record(t, 4, 1), at(10*time.Second))
	if c.Evicted != testKey(t, 2).ID() {
		t.Errorf("evicted %s, want the silent one", c.Evicted.Short())
	}
	if c := mustMerge(t, table, record(t, 2, 1), at(11*time.Second)); c.Kind != Added || c.Evicted != testKey(t, 3).ID() {
		t.Errorf("the evicted cannot come back: %v", c.Kind)
	}
	if len(list(table)) != 4 {
		t.Errorf("%d members", len(list(table)))
	}
	if _, err := merge(table, record(t, 9, 1, left), start); !errors.Is(err, ErrFull) {
		t.Errorf("made room for who leaves: %v", err)
	}
	for n := range 10 {
		table.SetConnected(testKey(t, n).ID(), true, at(12*time.Second))
	}
	table.Expire(at(12 * time.Second))
	if _, err := merge(table, record(t, 5, 1), start); !errors.Is(err, ErrFull) {
		t.Errorf("evicted the connected: %v", err)
	}
	if c := mustMerge(t, table, record(t, 4, 2), start); c.Kind != Refreshed {
		t.Errorf("a full table does not take news: %v", c.Kind)
	}
}

func TestConnected(t *testing.T) {
	table, id := newTable(t, Limits{}), testKey(t, 1).ID()
	table.SetConnected(id, true, start) // not known yet
	mustMerge(t, table, record(t, 1, 1), start)
	if gone := table.Expire(at(time.Hour)); len(gone) != 0 {
		t.Error("expired although connected")
	}
	mustMerge(t, table, record(t, 1, 2, note("x")), at(2*time.Hour))
	if gone := table.Expire(at(4 * time.Hour)); len(gone) != 0 {
		t.Error("a new record ended the connection")
	}
	before := table.Snapshot()
	table.SetConnected(id, false, at(5*time.Hour))
	if m, _ := get(table, id); m.Refreshed != at(5*time.Hour) {
		t.Error("the end of the connection went unnoticed")
	}
	if m, _ := before.Get(id); m.Refreshed == at(5*time.Hour) {
		t.Error("a snapshot changed")
	}
}

func TestFloodStaysBounded(t *testing.T) {
	table := newTable(t, Limits{Members: 50, Tombstones: 50})
	for n := range 1000 {
		if _, err := merge(table, record(t, n, 1), at(time.Duration(n)*time.Minute)); err != nil {
			t.Fatal(err)
		}
		table.Expire(at(time.Duration(n) * time.Minute))
		if got := len(table.entries) + len(table.gone.stones); got > 100 {
			t.Fatalf("%d entries", got)
		}
	}
	if _, ok := get(table, testKey(t, 0).ID()); !ok {
		t.Error("the flood washed this node away")
	}
}

// The clone detector knows a machine that lost its state from two machines.
func TestCloned(t *testing.T) {
	run := func(b byte) say { return func(r *wire.Record) { r.Run = Run{b} } }
	for _, c := range []struct {
		name string
		runs []byte // of records with rising numbers
		want bool
	}{
		{"one run", []byte{1, 1, 1, 1}, false},
		{"restarts", []byte{1, 2, 3, 4, 5}, false},
		{"records without a run", []byte{0, 0, 1, 0, 1, 0, 1}, false},
		{"state lost: new, the earlier life's, over it", []byte{2, 1, 2, 2, 2}, false},
		{"two machines", []byte{1, 2, 1, 2}, true},
		{"three machines", []byte{1, 2, 3, 1, 2}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			table, id := newTable(t, Limits{}), testKey(t, 1).ID()
			now := start
			for i, b := range c.runs {
				now = now.Add(time.Second)
				mustMerge(t, table, record(t, 1, uint64(i+1), run(b)), now)
			}
			m, _ := get(table, id)
			if m.Cloned != c.want {
				t.Fatalf("cloned %v, want %v", m.Cloned, c.want)
			}
			before := table.Revision()
			mustMerge(t, table, record(t, 1, 99, run(c.runs[len(c.runs)-1])), now)
			if table.Revision() != before {
				t.Error("a refresh counts as a change")
			}
			table.SetConnected(id, true, now)
			table.Expire(now.Add(time.Hour))
			if m, _ := get(table, id); m.Cloned || c.want && table.Revision() == before {
				t.Error("cloned for ever, or not told that it is over")
			}
		})
	}
}

// Whoever reads shares one snapshot until something changes.
func TestSnapshotIsShared(t *testing.T) {
	table := newTable(t, Limits{})
	mustMerge(t, table, record(t, 1, 1), start)
	first, id := table.Snapshot(), testKey(t, 1).ID()
	if n := testing.AllocsPerRun(100, func() { table.Snapshot().List(); first.Get(id) }); n > 0 || table.Snapshot() != first {
		t.Errorf("made anew without a change: %v allocations to read", n)
	}
	mustMerge(t, table, record(t, 2, 1), start)
	if len(first.List()) != 1 || len(list(table)) != 2 {
		t.Error("a snapshot changed")
	}
}

func TestKindString(t *testing.T) {
	for k, want := range map[Kind]string{Unchanged: "unchanged", Left: "left", -1: "kind -1", 99: "kind 99"} {
		if got := k.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// FuzzSchedule drives a table through any order of events and checks what must
// always hold.
func FuzzSchedule(f *testing.F) {
	records := make([]wire.Signed, 64)
	for i := range records {
		var says []say
		if i%8 == 7 {
			says = append(says, left)
		}
		records[i] = record(f, i/8, uint64(i%8), says...)
	}
	f.Add([]byte{0, 1, 70, 9, 200, 255, 1, 1})
	f.Add([]byte{63, 62, 61, 255, 255, 63, 62, 8, 16, 24, 32, 40})
	f.Fuzz(func(t *testing.T, events []byte) {
		table := newTable(t, Limits{Members: 4, Tombstones: 3})
		now, revision := start, uint64(0)
		seqs := func() map[identity.ID]uint64 {
			out := make(map[identity.ID]uint64)
			for n := range 8 {
				id := testKey(t, n).ID()
				out[id], _ = table.Seq(id)
			}
			return out
		}
		for _, e := range events {
			before := seqs()
			switch {
			case e < 64:
				c, err := merge(table, records[e], now)
				if err != nil && !errors.Is(err, ErrFull) {
					t.Fatal(err)
				}
				if err == nil && seqs()[c.ID] < before[c.ID] {
					t.Fatal("went back to an older record")
				}
			case e < 128:
				id, _, _ := records[e-64].Head()
				table.SetConnected(id, e%2 == 0, now)
			default:
				now = now.Add(time.Duration(e-128) * time.Minute)
				table.Expire(now)
				if len(table.gone.stones) > 3 {
					t.Fatal("over the limits")
				}
			}
			if len(list(table)) > 4 || table.Revision() < revision {
				t.Fatal("too many members, or the revision went back")
			}
			revision = table.Revision()
			size := 0
			for _, e := range table.entries {
				size += len(e.Signed)
			}
			if size != table.Bytes() || !slices.IsSortedFunc(table.entries, func(a, b *entry) int { return a.ID.Compare(b.ID) }) {
				t.Fatal("lost count, or the order")
			}
		}
	})
}

func BenchmarkSnapshot(b *testing.B) {
	table := newTable(b, Limits{})
	for n := range 250 {
		mustMerge(b, table, record(b, n, 1), start)
	}
	b.ReportAllocs()
	for b.Loop() {
		table.snapshot = nil
		table.Snapshot()
	}
}

func BenchmarkSummary(b *testing.B) {
	table := newTable(b, Limits{})
	for n := range 250 {
		mustMerge(b, table, record(b, n, 1), start)
	}
	b.ReportAllocs()
	for b.Loop() {
		table.version++
		table.Summary()
	}
}
