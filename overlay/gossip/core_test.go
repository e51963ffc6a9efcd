package gossip

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/wire"
)

// What a big mesh costs: how fast it becomes one, what a change costs, and rest.
func TestBigMesh(t *testing.T) {
	n := 250
	if testing.Short() {
		n = 60
	}
	s := newSim(t, n)
	all := s.nodes
	s.connectAll(all, all)
	took := s.until(5*time.Second, "everybody knows everybody", s.alike)
	t.Logf("RESULT %d nodes connected at once are alike after %s: %v", n, took, s)

	s.run(time.Minute)
	s.reset()
	all[0].say("changed")
	took = s.until(time.Second, "everybody knows the change", func() bool {
		for _, o := range all {
			if o.note(all[0]) != "changed" {
				return false
			}
		}
		return true
	})
	s.run(time.Second)
	t.Logf("RESULT one change is known to %d nodes after %s: %v", n, took, s)
	if most := n - 1 + n*fanout + n; s.records > most {
		t.Errorf("%d records for one change, want at most %d", s.records, most)
	}

	s.reset()
	const rest = 10 // minutes
	s.run(rest * time.Minute)
	t.Logf("RESULT %d nodes at rest, for each node and minute: %.1f records, %.2f summaries, %.3f digests, %.0f bytes", n,
		perNode(s.records, n, rest), perNode(s.messages["summary"], n, rest), perNode(s.messages["digest"], n, rest), perNode(s.bytes, n, rest))
	// Each is refreshed every 10 minutes: to all peers of the author, and by each of
	// these to one more.
	if most := 2.1 * float64(n) / 10; perNode(s.records, n, rest) > most {
		t.Errorf("more than %.0f records", most)
	}
	if perNode(s.messages["summary"], n, rest) > 1.5 || perNode(s.messages["digest"], n, rest) > 0.05 {
		t.Errorf("too many comparisons: %v", s)
	}
}

// Two halves that changed meanwhile and see all of each other again.
func TestHeal(t *testing.T) {
	const n = 100
	s := newSim(t, n)
	all := s.nodes
	s.connectAll(all, all)
	s.until(5*time.Second, "alike", s.alike)
	left, right := all[:n/2], all[n/2:]
	for _, a := range left {
		for _, b := range right {
			s.cut(a, b)
		}
	}
	for _, a := range all {
		a.say("in the partition")
	}
	s.run(5 * time.Minute)
	s.reset()
	s.connectAll(left, right)
	took := s.until(10*time.Second, "healed", s.alike)
	s.run(10 * time.Second)
	t.Logf("RESULT two halves of %d nodes are alike after %s: %v", n/2, took, s)
	if most := 3 * n; s.messages["digest"] > most {
		t.Errorf("%d digests, want at most %d", s.messages["digest"], most)
	}
	s.reset()
	s.run(time.Minute)
	if got := s.messages["digest"]; got > n/10 {
		t.Errorf("%d digests in a minute after all was said", got)
	}
}

func perNode(what, nodes, minutes int) float64 {
	return float64(what) / float64(nodes) / float64(minutes)
}

// A node that joins asks one for the table, and not everybody.
func TestJoin(t *testing.T) {
	const n = 100
	s := newSim(t, n)
	s.connectAll(s.nodes, s.nodes)
	s.until(5*time.Second, "alike", s.alike)
	s.run(time.Minute)
	s.reset()
	late := s.add(Config{Key: testKey(t, 1000), Incarnation: 1})
	s.connectAll([]*simNode{late}, s.nodes[:n])
	took := s.until(time.Second, "the newcomer knows everybody", s.alike)
	s.run(10 * time.Second)
	t.Logf("RESULT the node number %d is alike after %s: %v", n+1, took, s)
	// The others' own records, its own to each, each of these passed on, and once the table.
	if most := n + n + 2*n*fanout + n; s.records > most {
		t.Errorf("%d records, want at most %d", s.records, most)
	}
	if got := s.messages["digest"]; got > 10 {
		t.Errorf("%d digests for one that joined", got)
	}
}

// Two halves that changed and see each other in one place only: what is new goes
// through that, by one exchange, and on from peer to peer.
func TestHealThroughOne(t *testing.T) {
	const n = 60
	s := newSim(t, n)
	s.connectAll(s.nodes, s.nodes)
	s.until(5*time.Second, "alike", s.alike)
	left, right := s.nodes[:n/2], s.nodes[n/2:]
	for _, a := range left {
		for _, b := range right {
			s.cut(a, b)
		}
	}
	for _, o := range s.nodes {
		o.say("in the partition")
	}
	s.run(time.Minute)
	s.reset()
	s.connect(left[7], right[7])
	took := s.until(3*time.Minute, "alike", s.alike)
	t.Logf("RESULT two halves of %d nodes with one connection between them are alike after %s: %v", n/2, took, s)
	// Each of the n records is passed on by all of the other half, and some are shown
	// once more by a comparison.
	if most := n * (n / 2) * (fanout + 1); s.records > most || s.messages["digest"] > n {
		t.Errorf("want at most %d records and %d digests: %v", most, n, s)
	}
}

// gone makes n remember a bridge that came and went.
func (n *simNode) gone(key identity.Key) {
	n.sim.t.Helper()
	signed, err := wire.Seal(key, wire.Record{Name: "laptop", Kind: wire.KindBridge, Seq: 1})
	if err != nil {
		n.sim.t.Fatal(err)
	}
	v, err := member.Verify(signed)
	if err != nil {
		n.sim.t.Fatal(err)
	}
	if _, err := n.table.Merge(v, n.sim.now.Add(-2*time.Hour)); err != nil {
		n.sim.t.Fatal(err)
	}
	if got := n.table.Expire(n.sim.now); len(got) != 1 {
		n.sim.t.Fatal(got)
	}
}

// Each side of a partition saw a bridge come and go. When it heals, both agree on
// everybody who is there: nothing is exchanged but summaries. (Once each side asked
// for the bridge that it had not seen, 50 times a second.)
func TestTombstonesStartNoExchange(t *testing.T) {
	for _, both := range []bool{false, true} {
		t.Run(fmt.Sprintf("on both sides %v", both), func(t *testing.T) {
			s := newSim(t, 2)
			s.connectAll(s.nodes, s.nodes)
			s.run(time.Minute)
			s.cut(s.nodes[0], s.nodes[1])
			s.nodes[0].gone(testKey(t, 100))
			if both {
				s.nodes[1].gone(testKey(t, 101))
			}
			s.reset()
			s.connect(s.nodes[0], s.nodes[1])
			s.run(time.Hour)
			t.Log(s)
			if s.messages["digest"] > 0 || s.messages["summary"] > 2*65 {
				t.Errorf("%v in an hour between two members that agree on everybody who is there", s)
			}
		})
	}
}

// A member is live here and gone there: that is compared, more and more seldom.
func TestLiveAgainstGone(t *testing.T) {
	s := newSim(t, 2)
	a, b := s.nodes[0], s.nodes[1]
	bridge := testKey(t, 100)
	a.gone(bridge)
	signed, _ := a.table.Signed(bridge.ID())
	v, err := member.Verify(signed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.table.Merge(v, s.now); err != nil {
		t.Fatal(err)
	}
	s.connect(a, b)
	s.run(50 * time.Minute)
	t.Log(s)
	if s.messages["digest"] > 25 || s.records > 50 {
		t.Errorf("%v in 50 minutes for one member that is gone", s)
	}
	if _, ok := a.table.Snapshot().Get(bridge.ID()); ok {
		t.Error("the member is back from the dead")
	}
	s.run(20 * time.Minute)
	s.reset()
	s.run(10 * time.Minute)
	if !s.alike() || s.messages["digest"] > 0 {
		t.Errorf("%v after it is gone everywhere", s)
	}
}

// The state file of a node was lost, its key was not, and the others have expired
// it: they ignore its low numbers, and show it how far it had come.
func TestLostStateFile(t *testing.T) {
	for name, direct := range map[string]bool{"connected to who remembers": true, "through one that does not": false} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, 2)
			key := testKey(t, 50)
			s.connect(s.nodes[0], s.nodes[1])
			old := s.add(Config{Key: key, Incarnation: 9, Run: member.Run{9}})
			s.connect(s.nodes[0], old)
			s.until(time.Second, "the first life is known", s.alike)
			s.cut(s.nodes[0], old)
			s.nodes = s.nodes[:2]
			old.peers = nil
			s.run(2 * time.Hour)
			if _, ok := s.nodes[0].table.Snapshot().Get(key.ID()); ok {
				t.Fatal("it did not expire")
			}
			via := s.nodes[0]
			if !direct {
				fresh := s.add(Config{Key: testKey(t, 60), Incarnation: 1})
				s.connect(via, fresh)
				s.run(time.Second)
				via = fresh
			}
			back := s.add(Config{Key: key, Run: member.Run{10}})
			back.say("back")
			s.connect(via, back)
			took := s.until(time.Second, "it is heard again", func() bool {
				return s.nodes[0].note(back) == "back" && s.nodes[1].note(back) == "back"
			})
			s.run(5 * time.Second)
			t.Logf("heard after %s, with number %#x", took, back.seq)
			if half(back.seq) != 10 || !s.alike() {
				t.Errorf("number %#x, want the next upper half", back.seq)
			}
			for _, n := range s.nodes {
				if m, ok := n.table.Snapshot().Get(key.ID()); !ok || m.Cloned {
					t.Errorf("node %d takes it for a clone", n.index)
				}
			}
		})
	}
}

// Others may say what they like about how far a node has come.
func TestForgedNumbers(t *testing.T) {
	s := newSim(t, 1)
	n, peer := s.nodes[0], testKey(t, 70).ID()
	n.up(peer, s.now)
	before := n.seq
	n.heardDigest(peer, wire.Digest{Entries: []wire.Entry{{ID: n.self, Seq: math.MaxUint64}}}, s.now)
	if n.seq != before {
		t.Error("jumped over a number that nobody signed")
	}
	if want := n.byID[peer].want; len(want) != 1 || want[0] != n.self {
		t.Errorf("does not ask for the record: %v", want)
	}
}

// The last number that there is says so instead of beginning anew.
func TestNumbersAreUsedUp(t *testing.T) {
	s := newSim(t, 1)
	n := s.nodes[0]
	n.heardOwn(wire.Record{Seq: math.MaxUint64 - 1, Run: member.Run{7}}, s.now)
	if n.seq != math.MaxUint64 || n.out.err != nil {
		t.Fatalf("number %#x, %v", n.seq, n.out.err)
	}
	if err := n.publish(wire.Record{Name: "x", Kind: wire.KindNode}, s.now); err == nil {
		t.Error("published beyond the last number")
	}
	n.out.err = nil
}

// Two machines start with copies of one state directory: both find out, and so does
// everybody; and the race of their numbers ends.
func TestClonesFindOut(t *testing.T) {
	for name, first := range map[string]uint32{"the same state": 5, "one of them lost its state": 0} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, 4)
			key := testKey(t, 50)
			s.connectAll(s.nodes, s.nodes)
			one := s.add(Config{Key: key, Incarnation: 5, Run: member.Run{0xa}})
			two := s.add(Config{Key: key, Incarnation: first, Run: member.Run{0xb}})
			s.connect(s.nodes[0], one)
			s.connect(s.nodes[1], two)
			one.say("one")
			two.say("two")
			cloned := func(n *simNode) bool {
				m, ok := n.table.Snapshot().Get(key.ID())
				return ok && m.Cloned
			}
			took := s.until(time.Minute, "all know", func() bool {
				for _, n := range s.nodes {
					if !cloned(n) {
						return false
					}
				}
				return true
			})
			s.reset()
			s.run(10 * time.Minute)
			t.Logf("RESULT a clone is known everywhere after %s; then in 10 minutes %v", took, s)
			if s.records > 500 {
				t.Errorf("they go on: %v", s)
			}
			for _, n := range []*simNode{two} {
				s.cut(s.nodes[1], n)
				n.peers = nil
			}
			s.nodes = s.nodes[:5]
			s.run(2 * time.Hour)
			for _, n := range s.nodes {
				if cloned(n) {
					t.Errorf("node %d tells of a clone long after it", n.index)
				}
			}
		})
	}
}
