package genesis

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
)

// The simulator runs the pure parts of many nodes under one seeded schedule:
// messages are dropped, doubled, delayed and reordered, nodes crash between any
// two steps and come back with what they had saved, links go down and up.
//
//	node ──send──> pool of messages in flight ──pick any──> node
//	 │ save (may crash before, or between save and reply)
//	disk
//
// After every step the invariants are checked:
//
//	I1  at most one cluster is started in a network (up to 2Q-1 voters)
//	I2  every certificate that anyone holds verifies on every node
//	I3  epochs and, within a register, promises never go backward on disk
//	I4  no answer leaves a node whose disk does not hold what it says

var (
	simRuns = flag.Int("genesis.runs", 20000, "random schedules to simulate")
	simSeed = flag.Uint64("genesis.seed", 1, "first seed of the random schedules")
	simShow = flag.Bool("genesis.trace", false, "print the end of a failed schedule (give its seed)")
)

// fakeSign stands for Ed25519, which would take most of the time.
func fakeSign(id identity.ID, msg []byte) []byte {
	h := sha256.New()
	h.Write(id[:])
	h.Write(msg)
	return h.Sum(nil)
}

func fakeVerify(id identity.ID, context string, msg, sig []byte) bool {
	return context == SignContext && slices.Equal(sig, fakeSign(id, msg))
}

type packet struct {
	from, to int
	msg      Message
}

type simNode struct {
	id       identity.ID
	core     Core
	disk     State
	up       bool
	proposal *Proposal // volatile
	higher   uint64    // volatile
	started  UID       // what this node started; durable (it is a fact of the world)
}

type sim struct {
	t      *testing.T
	rng    *rand.Rand
	net    Network
	nodes  []*simNode
	pool   []packet
	down   [][]bool // links
	trace  []string
	births map[UID]bool // clusters that were started or may be
	thief  *thief       // nil: everybody is honest, see forge_test.go
	final  []UID        // by node: what it knew to have started; with a thief only
}

func newSim(t *testing.T, seed uint64, n, voters int) *sim {
	s := &sim{t: t, rng: rand.New(rand.NewPCG(seed, 7)), births: map[UID]bool{},
		net: Network{Fingerprint: [32]byte{1}, ID: "sim", Nodes: n, Quorum: n/2 + 1}}
	for i := range voters {
		id := identity.ID{byte(i + 1)}
		core := NewCore(id, s.net, fakeVerify)
		disk, err := core.Adopt(State{})
		if err != nil {
			t.Fatal(err)
		}
		s.nodes = append(s.nodes, &simNode{id: id, core: core, disk: disk, up: true})
		s.down = append(s.down, make([]bool, voters))
	}
	return s
}

func (s *sim) logf(format string, args ...any) {
	if *simShow {
		s.trace = append(s.trace, fmt.Sprintf(format, args...))
	}
}

func (s *sim) fatalf(seed uint64, format string, args ...any) {
	s.t.Helper()
	tail := s.trace[max(0, len(s.trace)-60):]
	for _, l := range tail {
		s.t.Log(l)
	}
	s.t.Fatalf("%s; see it with -genesis.seed=%d -genesis.runs=1 -genesis.trace", fmt.Sprintf(format, args...), seed)
}

// save makes next durable on node i; false means that it crashed first.
func (s *sim) save(i int, next State) bool {
	n := s.nodes[i]
	if s.rng.IntN(40) == 0 {
		s.crash(i)
		return false
	}
	s.checkForward(i, n.disk, next)
	n.disk = next
	if s.rng.IntN(40) == 0 { // saved, and nobody will hear of it
		s.crash(i)
		return false
	}
	return true
}

func (s *sim) crash(i int) {
	s.logf("node %d crashes", i)
	s.nodes[i].up, s.nodes[i].proposal, s.nodes[i].higher = false, nil, 0
}

var violation string // set by checks deep in a step, read by the loop

func (s *sim) checkForward(i int, old, next State) {
	if next.epoch() < old.epoch() {
		violation = fmt.Sprintf("I3: node %d goes from epoch %d to %d", i, old.epoch(), next.epoch())
	}
	for _, v := range old.Votes {
		now := next.acceptance(v.Register)
		if v.Register.Epoch >= next.epoch() && (now.Promised.Compare(v.Promised) < 0 || now.Accepted.Compare(v.Accepted) < 0) {
			violation = fmt.Sprintf("I3: node %d forgets a vote in %v", i, v.Register)
		}
	}
}

// checkSaid asserts I4 for an answer that is about to leave node i.
func (s *sim) checkSaid(i int, m Message) {
	a := s.nodes[i].disk.acceptance(m.Register)
	switch m.Type {
	case TypePromise:
		if a.Promised.Compare(m.Ballot) < 0 {
			violation = fmt.Sprintf("I4: node %d promises what it did not save", i)
		}
	case TypeAccepted:
		if a.Accepted.Compare(m.Ballot) < 0 {
			violation = fmt.Sprintf("I4: node %d accepts what it did not save", i)
		}
	}
}

// send puts a message into the pool through JSON now and then, so that the
// encoding is part of what is simulated.
func (s *sim) send(from, to int, m Message) {
	if s.down[from][to] {
		return
	}
	if s.rng.IntN(50) == 0 {
		raw, err := m.Encode()
		if err != nil {
			s.t.Fatal(err)
		}
		back, err := DecodeMessage(raw)
		if err != nil || !reflect.DeepEqual(normal(back), normal(m)) {
			s.t.Fatalf("message changes on its way: %v\n%s", err, raw)
		}
		m = back
	}
	s.pool = append(s.pool, packet{from, to, m})
}

func normal(m Message) string {
	raw, err := json.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

func (s *sim) broadcast(i int, m Message) {
	for j := range s.nodes {
		if j != i {
			s.send(i, j, m)
		}
	}
}

// answer lets node i handle a request, its own included.
func (s *sim) answer(i, from int, m Message) (Message, bool) {
	n := s.nodes[i]
	step, err := n.core.Handle(n.disk, s.nodes[from].id, m)
	if err != nil {
		violation = fmt.Sprintf("honest message refused by node %d: %v", i, err)
		return Message{}, false
	}
	if step.Changed && !s.save(i, step.State) {
		return Message{}, false
	}
	if step.Sign != nil {
		step.Reply.Vote.Signature = fakeSign(n.id, step.Sign)
	}
	s.checkSaid(i, step.Reply)
	return step.Reply, true
}

func (s *sim) learn(i int, m Message) bool {
	n := s.nodes[i]
	next, changed, err := n.core.Learn(n.disk, m)
	if err != nil {
		violation = fmt.Sprintf("I2: node %d does not verify what another proved: %v", i, err)
		return false
	}
	return !changed || s.save(i, next)
}

func (s *sim) deliver(p packet) {
	n := s.nodes[p.to]
	if !n.up {
		return
	}
	switch p.msg.Type {
	case TypePrepare, TypeAccept, TypeAsk, TypeKnow:
		if reply, ok := s.answer(p.to, p.from, p.msg); ok && p.msg.Type != TypeKnow {
			s.send(p.to, p.from, reply)
		}
	default:
		if !s.learn(p.to, p.msg) || n.proposal == nil {
			return
		}
		before := n.proposal.Stage()
		n.proposal.Deliver(s.nodes[p.from].id, p.msg)
		n.higher = max(n.higher, n.proposal.Higher())
		s.advance(p.to, before)
	}
}

// advance does what a driver does when a proposal has moved on.
func (s *sim) advance(i int, before Stage) {
	n := s.nodes[i]
	if n.proposal.Moot(n.disk) {
		n.proposal = nil
		return
	}
	if n.proposal.Stage() == Accepting && before == Preparing {
		m := n.proposal.Message()
		s.broadcast(i, m)
		reply, ok := s.answer(i, i, m)
		if !ok {
			return
		}
		before = Accepting
		n.proposal.Deliver(n.id, reply)
	}
	if n.proposal.Stage() == Complete {
		m := n.proposal.Result()
		s.certified(n.proposal.Certificate())
		n.proposal = nil
		s.logf("node %d has %v %v", i, m.Decision, m.Prior)
		if s.learn(i, m) {
			s.broadcast(i, m)
		}
	} else if n.proposal.Stage() == Failed {
		n.proposal = nil
	}
}

// certified asserts I2 for a new certificate.
func (s *sim) certified(cert Certificate) {
	if cert.Value.Outcome == Started {
		s.births[cert.Value.UID] = true
	}
	for j, n := range s.nodes {
		if err := n.core.VerifyCertificate(cert); err != nil {
			violation = fmt.Sprintf("I2: certificate refused by node %d: %v", j, err)
		}
	}
}

func (s *sim) begin(i int, r Register, want Value) {
	n := s.nodes[i]
	next, p, ok := n.core.Begin(n.disk, r, want, n.higher)
	if !ok {
		return
	}
	// Written before the first message: see Begin.
	if !s.save(i, next) {
		return
	}
	n.proposal = p
	if p.Stage() == Preparing {
		s.broadcast(i, p.Message())
	} else {
		s.advance(i, Preparing)
	}
}

// act lets node i do something of its own accord: it proposes, whether it is
// its turn or not (safety must not depend on turns), starts, or asks around.
func (s *sim) act(i int) {
	n := s.nodes[i]
	d := n.disk.Decision
	switch {
	case d == nil:
		var uid UID
		binary.BigEndian.PutUint64(uid[:], s.rng.Uint64()|1)
		s.begin(i, Register{GenesisRegister, n.disk.epoch()}, NewValue(uid, []identity.ID{n.id}))
	case d.Result() == Started:
		if d.Servers()[0] == n.id && n.started.IsZero() {
			n.started = d.UID()
			s.logf("node %d STARTS %s in epoch %d", i, d.UID(), d.Epoch())
		}
		s.broadcast(i, n.core.Know(n.disk))
	case d.Servers()[0] == n.id && s.rng.IntN(3) > 0:
		s.begin(i, Register{OutcomeRegister, d.Epoch()}, Value{UID: d.UID(), Outcome: Started})
	case s.rng.IntN(3) == 0: // too early, as seen by the server: it must be safe at any time
		s.begin(i, Register{OutcomeRegister, d.Epoch()}, Value{UID: d.UID(), Outcome: Abandoned})
	default:
		s.broadcast(i, n.core.Ask())
	}
}

func (s *sim) step() {
	switch k := s.rng.IntN(100); {
	case k < 70 && len(s.pool) > 0:
		j := s.rng.IntN(len(s.pool))
		p := s.pool[j]
		switch s.rng.IntN(10) {
		case 0: // lost
		case 1: // doubled
			s.pool = append(s.pool, p)
		}
		if s.rng.IntN(10) > 0 {
			s.pool = slices.Delete(s.pool, j, j+1)
			s.logf("%d -> %d %s %v %d", p.from, p.to, p.msg.Type, p.msg.Register, p.msg.Ballot.Round)
			s.deliver(p)
		}
	case k < 90:
		if i := s.rng.IntN(len(s.nodes)); s.nodes[i].up {
			s.act(i)
		} else {
			s.nodes[i].up = true
			s.logf("node %d is back", i)
		}
	case k < 92:
		s.crash(s.rng.IntN(len(s.nodes)))
	case k < 96:
		i, j := s.rng.IntN(len(s.nodes)), s.rng.IntN(len(s.nodes))
		s.down[i][j] = !s.down[i][j]
	}
}

// heal ends all faults and lets the nodes talk until they agree (I5).
func (s *sim) heal(seed uint64) {
	for i, n := range s.nodes {
		n.up = true
		for j := range s.down[i] {
			s.down[i][j] = false
		}
	}
	for range 400 {
		for len(s.pool) > 0 {
			p := s.pool[0]
			s.pool = s.pool[1:]
			s.deliver(p)
			if violation != "" {
				return
			}
		}
		for _, n := range s.nodes {
			n.up = true
		}
		if s.agreed() {
			return
		}
		s.act(s.rng.IntN(len(s.nodes)))
	}
	s.fatalf(seed, "no agreement although all nodes are connected")
}

func (s *sim) agreed() bool {
	first := s.nodes[0].disk.Decision
	for _, n := range s.nodes {
		d := n.disk.Decision
		if d == nil || d.Result() != Started || d.UID() != first.UID() {
			return false
		}
	}
	return true
}

func TestRandomSchedules(t *testing.T) {
	runs := *simRuns
	if testing.Short() || raceEnabled {
		runs = min(runs, 2000)
	}
	born, epochs := 0, uint64(0)
	for seed := *simSeed; seed < *simSeed+uint64(runs); seed++ {
		n := 1 + int(seed%5)
		// More nodes than declared, as long as they are fewer than 2Q.
		s := newSim(t, seed, n, n+int(seed/5)%(2*(n/2+1)-n))
		violation = ""
		for range 150 {
			s.step()
			if len(s.births) > 1 {
				violation = fmt.Sprintf("I1: %d clusters started", len(s.births))
			}
			if violation != "" {
				s.fatalf(seed, "%s", violation)
			}
		}
		born += len(s.births)
		s.heal(seed)
		if violation != "" {
			s.fatalf(seed, "%s", violation)
		}
		if len(s.births) > 1 {
			s.fatalf(seed, "I1: %d clusters started after healing", len(s.births))
		}
		epochs = max(epochs, s.nodes[0].disk.epoch())
	}
	t.Logf("RESULT %d schedules, %d births before healing, highest epoch %d", runs, born, epochs)
	if born == 0 || epochs < 2 {
		t.Error("the schedules do not exercise births and abandonment")
	}
}
