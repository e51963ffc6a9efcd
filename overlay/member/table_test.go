package member

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
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

func newTable(t testing.TB, limits Limits) *Table {
	t.Helper()
	return New(testKey(t, 0).ID(), limits)
}

func mustMerge(t testing.TB, table *Table, s wire.Signed, now time.Time) Change {
	t.Helper()
	c, err := table.Merge(s, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func nobody(identity.ID) bool    { return false }
func everybody(identity.ID) bool { return true }

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
		{"same number, other content", []wire.Signed{record(t, 1, 5), record(t, 1, 5, note("x"))}, []Kind{Added, Unchanged}, true, 1},
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
				if change.ID != testKey(t, 1).ID() || (change.Kind != Unchanged && change.Record.ID != change.ID) {
					t.Errorf("change of %s with a record of %s", change.ID.Short(), change.Record.ID.Short())
				}
				kinds = append(kinds, change.Kind)
			}
			if !reflect.DeepEqual(kinds, c.want) {
				t.Errorf("kinds %v, want %v", kinds, c.want)
			}
			if _, ok := table.Get(testKey(t, 1).ID()); ok != c.present || len(table.List()) == 1 != c.present {
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
	if _, err := table.Merge(forged, start); !errors.Is(err, wire.ErrSignature) {
		t.Errorf("forged: %v", err)
	}
	if _, err := table.Merge(wire.Signed("short"), start); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("short: %v", err)
	}
	if m, ok := table.Get(testKey(t, 1).ID()); !ok || m.Seq != 5 {
		t.Errorf("sequence %d", m.Seq)
	}
}

// The table must not hold on to the message that a record came in.
func TestMergeCopies(t *testing.T) {
	table := newTable(t, Limits{})
	s := bytes.Clone(record(t, 1, 5))
	mustMerge(t, table, s, start)
	clear(s)
	m, _ := table.Get(testKey(t, 1).ID())
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
	connected := func(id identity.ID) bool { return id == testKey(t, 1).ID() }
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
		gone := table.Expire(at(c.after), connected)
		if len(gone) != len(c.gone) || (len(gone) == 1 && gone[0] != testKey(t, c.gone[0]).ID()) {
			t.Errorf("after %v: %d gone, want %v", c.after, len(gone), c.gone)
		}
		if c.after == time.Hour && table.Revision() == before {
			t.Error("a member vanished without a new revision")
		}
	}
	if len(table.List()) != 2 {
		t.Errorf("%d members left", len(table.List()))
	}
	// The connection was alive until now: a full hour starts when it ends.
	if gone := table.Expire(at(100*time.Hour+59*time.Minute), nobody); len(gone) != 0 {
		t.Error("gone right after the connection")
	}
	if gone := table.Expire(at(101*time.Hour), nobody); len(gone) != 1 {
		t.Errorf("%d gone", len(gone))
	}
}

func TestRefreshKeepsAlive(t *testing.T) {
	table := newTable(t, Limits{})
	for i := range 100 {
		now := at(time.Duration(i) * Refresh)
		mustMerge(t, table, record(t, 1, uint64(i)), now)
		if gone := table.Expire(now, nobody); len(gone) != 0 {
			t.Fatalf("expired although refreshed, after %d", i)
		}
	}
}

// A repeated goodbye does not keep a member around.
func TestGoodbyeIsNotProlonged(t *testing.T) {
	table := newTable(t, Limits{})
	mustMerge(t, table, record(t, 1, 1, left), start)
	mustMerge(t, table, record(t, 1, 2, left), at(50*time.Second))
	if gone := table.Expire(at(time.Minute), everybody); len(gone) != 1 {
		t.Error("still there")
	}
}

func TestTombstones(t *testing.T) {
	table := newTable(t, Limits{Tombstones: 10})
	old := record(t, 1, 5)
	mustMerge(t, table, old, start)
	table.Expire(at(2*time.Hour), nobody)
	if c := mustMerge(t, table, old, at(2*time.Hour)); c.Kind != Unchanged || len(table.List()) != 0 {
		t.Error("an expired record came back")
	}
	if table.Digest()[testKey(t, 1).ID()] != 5 {
		t.Error("the digest asks for who is gone")
	}
	if c := mustMerge(t, table, record(t, 1, 6), at(2*time.Hour)); c.Kind != Added {
		t.Errorf("the member itself cannot come back: %v", c.Kind)
	}
	table.Expire(at(4*time.Hour), nobody)
	table.Expire(at(28*time.Hour), nobody)
	if len(table.Digest()) != 0 {
		t.Error("the gone are remembered forever")
	}
	for n := 1; n <= 30; n++ {
		mustMerge(t, table, record(t, n, 10), at(30*time.Hour+time.Duration(n)*time.Second))
		table.Expire(at(40*time.Hour+time.Duration(n)*time.Second), nobody)
	}
	if got := table.Digest(); len(got) != 10 || got[testKey(t, 30).ID()] == 0 {
		t.Errorf("%d tombstones, want the last 10", len(got))
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
	if len(table.List()) != 4 {
		t.Errorf("%d members", len(table.List()))
	}
	if _, err := table.Merge(record(t, 9, 1, left), start); !errors.Is(err, ErrFull) {
		t.Errorf("made room for who leaves: %v", err)
	}
	table.Expire(at(12*time.Second), everybody)
	if _, err := table.Merge(record(t, 5, 1), start); !errors.Is(err, ErrFull) {
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
	if m, _ := table.Get(id); m.Connected {
		t.Error("connected before anybody said so")
	}
	table.SetConnected(id, true, at(time.Minute))
	mustMerge(t, table, record(t, 1, 2, note("x")), at(2*time.Minute))
	if m, _ := table.Get(id); !m.Connected || m.Refreshed != at(2*time.Minute) {
		t.Error("a new record ended the connection")
	}
	table.SetConnected(id, false, at(3*time.Minute))
	if m, _ := table.Get(id); m.Connected || m.Refreshed != at(3*time.Minute) {
		t.Error("the end of the connection went unnoticed")
	}
}

func TestFloodStaysBounded(t *testing.T) {
	table := newTable(t, Limits{Members: 50, Tombstones: 50})
	for n := range 1000 {
		if _, err := table.Merge(record(t, n, 1), at(time.Duration(n)*time.Minute)); err != nil {
			t.Fatal(err)
		}
		table.Expire(at(time.Duration(n)*time.Minute), nobody)
		if got := len(table.Digest()); got > 100 {
			t.Fatalf("%d entries", got)
		}
	}
	if _, ok := table.Get(testKey(t, 0).ID()); !ok {
		t.Error("the flood washed this node away")
	}
}

func TestMissing(t *testing.T) {
	table := newTable(t, Limits{})
	for n := range 6 {
		mustMerge(t, table, record(t, n, 5), start)
	}
	mustMerge(t, table, record(t, 5, 6, left), start)
	id := func(n int) identity.ID { return testKey(t, n).ID() }
	theirs := wire.Digest{id(1): 5, id(2): 4, id(3): 6, id(77): 1}
	want := map[identity.ID]bool{id(0): true, id(2): true, id(4): true, id(5): true}
	got := table.Missing(theirs, 100)
	if len(got) != len(want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
	for i, s := range got {
		who, _, _ := s.Head()
		if !want[who] {
			t.Errorf("sends %s, which they have", who.Short())
		}
		if i == 0 && who != id(0) {
			t.Error("not its own record first")
		}
	}
	for _, limit := range []int{-1, 0, 1, 3} {
		if n := len(table.Missing(theirs, limit)); n != max(limit, 0) {
			t.Errorf("%d records with limit %d", n, limit)
		}
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
			for _, s := range a.Missing(b.Digest(), 7) {
				mustMerge(t, b, s, start)
			}
		}
	}
	want := tables[0].Digest()
	if len(want) != 20 {
		t.Fatalf("%d members", len(want))
	}
	for i, table := range tables {
		if !reflect.DeepEqual(table.Digest(), want) {
			t.Errorf("table %d differs", i)
		}
		for _, m := range table.List() {
			if m.Seq != 4 || m.Annotations["note"] != "4" {
				t.Errorf("table %d has an old record", i)
			}
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	table := newTable(t, Limits{Members: 8})
	records := make([]wire.Signed, 0, 40)
	for i := range 40 {
		records = append(records, record(t, i%10, uint64(i)))
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, s := range records {
				if _, err := table.Merge(s, start); err != nil && !errors.Is(err, ErrFull) {
					t.Error(err)
				}
				table.Expire(start, nobody)
				table.SetConnected(testKey(t, 3).ID(), true, start)
				table.List()
				table.Missing(table.Digest(), 5)
				table.Revision()
			}
		})
	}
	wg.Wait()
	if n := len(table.List()); n == 0 || n > 8 {
		t.Errorf("%d members", n)
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
		for _, e := range events {
			before := table.Digest()
			switch {
			case e < 64:
				c, err := table.Merge(records[e], now)
				if err != nil && !errors.Is(err, ErrFull) {
					t.Fatal(err)
				}
				if seq, ok := before[c.ID]; ok && err == nil && table.Digest()[c.ID] < seq {
					t.Fatal("went back to an older record")
				}
			case e < 128:
				id, _, _ := records[e-64].Head()
				table.SetConnected(id, e%2 == 0, now)
			default:
				now = now.Add(time.Duration(e-128) * time.Minute)
				table.Expire(now, func(id identity.ID) bool { return id[0]&1 == e&1 })
				if len(table.Digest()) > 4+3 {
					t.Fatal("over the limits")
				}
			}
			if len(table.List()) > 4 || table.Revision() < revision {
				t.Fatal("too many members, or the revision went back")
			}
			revision = table.Revision()
		}
	})
}

func BenchmarkMergeKnown(b *testing.B) {
	table := newTable(b, Limits{})
	s := record(b, 1, 5)
	mustMerge(b, table, s, start)
	b.ReportAllocs()
	for b.Loop() {
		mustMerge(b, table, s, start)
	}
}
