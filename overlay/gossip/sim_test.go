package gossip

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/wire"
)

// sim is a mesh of cores with a clock of its own: no goroutine, no stream, no wait.
// The same seed gives the same run, apart from Go's order of maps.
type sim struct {
	t        testing.TB
	now      time.Time
	rng      *rand.Rand
	events   events
	n        uint64 // of events until now
	nodes    []*simNode
	verified map[string]member.Verified
	latency  time.Duration

	messages map[string]int // by kind, since the last reset
	records  int
	bytes    int
}

type simNode struct {
	*core
	sim   *sim
	index int
	peers map[identity.ID]*simNode // connected
	timer bool                     // work is scheduled
}

type event struct {
	at time.Time
	n  uint64
	do func()
}

type events []event

func (e events) Len() int      { return len(e) }
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e events) Less(i, j int) bool {
	if !e[i].at.Equal(e[j].at) {
		return e[i].at.Before(e[j].at)
	}
	return e[i].n < e[j].n
}
func (e *events) Push(x any) { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

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

func newSim(t testing.TB, n int) *sim {
	s := &sim{
		t: t, now: time.Now(), rng: rand.New(rand.NewPCG(1, 2)), verified: make(map[string]member.Verified),
		latency: 5 * time.Millisecond, messages: make(map[string]int),
	}
	for i := range n {
		s.add(Config{Key: testKey(t, i+1), Incarnation: 1, Run: member.Run{byte(i + 1), byte(i >> 8), 1}})
	}
	return s
}

// add starts a node that has published and is connected to nobody.
func (s *sim) add(cfg Config) *simNode {
	s.t.Helper()
	if cfg.Refresh == 0 {
		cfg.Refresh = member.Refresh
	}
	i := len(s.nodes)
	n := &simNode{core: newCore(cfg, rand.New(rand.NewPCG(3, uint64(i)))), sim: s, index: i, peers: make(map[identity.ID]*simNode)}
	s.nodes = append(s.nodes, n)
	n.say("")
	s.every(20*time.Second, func() { n.sweep(s.now); n.apply() })
	s.every(time.Minute, func() { n.compare(); n.apply() })
	return n
}

func (s *sim) after(d time.Duration, do func()) {
	s.n++
	heap.Push(&s.events, event{s.now.Add(d), s.n, do})
}

// every begins somewhere in the first period.
func (s *sim) every(period time.Duration, do func()) {
	var again func()
	again = func() { do(); s.after(period, again) }
	s.after(time.Duration(s.rng.Int64N(int64(period))), again)
}

// run lets time pass.
func (s *sim) run(d time.Duration) {
	end := s.now.Add(d)
	for len(s.events) > 0 && !s.events[0].at.After(end) {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
	}
	s.now = end
}

// until runs until cond holds, and returns how long it took.
func (s *sim) until(most time.Duration, what string, cond func() bool) time.Duration {
	s.t.Helper()
	begin := s.now
	for !cond() {
		if s.now.Sub(begin) > most {
			s.t.Fatalf("after %s still not: %s", most, what)
		}
		s.run(20 * time.Millisecond)
	}
	return s.now.Sub(begin)
}

func (s *sim) reset() { clear(s.messages); s.records, s.bytes = 0, 0 }

func (s *sim) String() string {
	return fmt.Sprintf("%d deltas with %d records, %d summaries, %d digests, %d wants, %d bytes",
		s.messages["delta"], s.records, s.messages["summary"], s.messages["digest"], s.messages["want"], s.bytes)
}

func (s *sim) connect(a, b *simNode) {
	a.peers[b.self], b.peers[a.self] = b, a
	a.up(b.self, s.now)
	b.up(a.self, s.now)
	a.apply()
	b.apply()
}

func (s *sim) cut(a, b *simNode) {
	delete(a.peers, b.self)
	delete(b.peers, a.self)
	a.down(b.self, s.now)
	b.down(a.self, s.now)
	a.apply()
	b.apply()
}

// connectAll connects everybody with everybody of the other, or of the same, group.
func (s *sim) connectAll(group, other []*simNode) {
	for i, a := range group {
		for j, b := range other {
			if &group[0] != &other[0] || i < j {
				s.connect(a, b)
			}
		}
	}
}

// alike reports whether all nodes have the same live records.
func (s *sim) alike() bool {
	for _, n := range s.nodes[1:] {
		if n.table.Summary() != s.nodes[0].table.Summary() {
			return false
		}
	}
	return true
}

// say publishes a record with a note.
func (n *simNode) say(text string) {
	n.sim.t.Helper()
	r := wire.Record{
		Name: fmt.Sprintf("n%d", n.index), Kind: wire.KindNode, NetworkID: "sim", Version: "v1.2.3",
		Annotations: map[string]string{"role": "worker", "note": text},
	}
	if err := n.publish(r, n.sim.now); err != nil {
		n.sim.t.Fatal(err)
	}
	n.apply()
}

// note is what another member says, as this node knows it.
func (n *simNode) note(of *simNode) string {
	m, ok := n.table.Snapshot().Get(of.self)
	if !ok {
		return "?"
	}
	return m.Annotations["note"]
}

// apply does for a core what a Gossip does.
func (n *simNode) apply() {
	s := n.sim
	if n.pending() {
		n.work(s.now)
		if n.pending() && !n.timer {
			n.timer = true
			s.after(workEvery, func() { n.timer = false; n.apply() })
		}
	}
	n.out.tell = nil
	if n.out.err != nil {
		s.t.Fatal(n.out.err)
	}
	for p := range n.out.due {
		b := n.take(p, s.now)
		if b.empty() && !b.last {
			continue
		}
		to := n.peers[p.id]
		for _, m := range b.messages() {
			s.messages[nameOf(m)]++
			raw, err := wire.AppendMessage(nil, m)
			if err != nil {
				s.t.Fatal(err)
			}
			s.bytes += len(raw)
			if d, ok := m.(wire.Delta); ok {
				s.records += len(d)
			}
			s.after(s.latency, func() {
				if n.peers[p.id] == to && to != nil {
					to.receive(n.self, m)
				}
			})
		}
		s.after(s.latency, func() { n.sent(p, b, nil, s.now); n.apply() })
	}
	clear(n.out.due)
}

func nameOf(m wire.Message) string {
	switch m.(type) {
	case wire.Delta:
		return "delta"
	case wire.Summary:
		return "summary"
	case wire.Digest:
		return "digest"
	}
	return "want"
}

func (n *simNode) receive(from identity.ID, m wire.Message) {
	s := n.sim
	switch m := m.(type) {
	case wire.Summary:
		n.heardSummary(from, m, s.now)
	case wire.Digest:
		n.heardDigest(from, m, s.now)
	case wire.Want:
		n.heardWant(from, m, s.now)
	case wire.Delta:
		for _, r := range n.filter(from, m, s.now) {
			v, ok := s.verified[string(r)]
			if !ok {
				var err error
				if v, err = member.Verify(r); err != nil {
					s.t.Fatal(err)
				}
				s.verified[string(r)] = v
			}
			n.heard(from, v, s.now)
		}
	}
	n.apply()
}
