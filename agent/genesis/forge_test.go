package genesis

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
)

// A thief has the token and nothing else: it makes keys, as many as a quorum
// has, and lets them sign whatever it likes. Nothing distinguishes such a
// certificate from an honest one (fault A17), so it must not be worth anything
// against a cluster that is known to have started.

// thief forges for one network.
type thief struct {
	rng     *rand.Rand
	network Network
	honest  []identity.ID // whom it may name as servers too
	known   []UID         // clusters that it has heard of
}

func (f *thief) cert(r Register, v Value) Certificate {
	c := Certificate{Register: r, Ballot: Ballot{Round: 1, Proposer: identity.ID{200}}, Value: v}
	msg := f.network.signedBytes(r, c.Ballot, v)
	for i := range f.network.Quorum {
		id := identity.ID{byte(200 + i)}
		c.Votes = append(c.Votes, Vote{Voter: id, Signature: fakeSign(id, msg)})
	}
	return c
}

// decision forges a cluster, started or open, whose server is the thief or an
// honest node.
func (f *thief) decision(epoch uint64, result Outcome) *Decision {
	server := identity.ID{200}
	if len(f.honest) > 0 && f.rng.IntN(3) == 0 {
		server = f.honest[f.rng.IntN(len(f.honest))]
	}
	v := NewValue(UID{0xbd, byte(f.rng.IntN(4))}, []identity.ID{server})
	d := &Decision{Genesis: f.cert(Register{GenesisRegister, epoch}, v)}
	if epoch > 1 {
		p := f.abandoned(epoch - 1)
		d.Prior = &p
	}
	if result == Started {
		o := f.cert(Register{OutcomeRegister, epoch}, Value{UID: v.UID, Outcome: Started})
		d.Outcome = &o
	}
	return d
}

// abandoned forges the end of an epoch: of a cluster that it made up or has heard of.
func (f *thief) abandoned(epoch uint64) Certificate {
	uid := UID{0xad}
	if len(f.known) > 0 && f.rng.IntN(2) == 0 {
		uid = f.known[f.rng.IntN(len(f.known))]
	}
	return f.cert(Register{OutcomeRegister, epoch}, Value{UID: uid, Outcome: Abandoned})
}

// message is something to say to a node.
func (f *thief) message() Message {
	m := Message{Version: messageVersion, Type: TypeKnow, NetworkID: f.network.ID}
	epoch := uint64(1 + f.rng.IntN(6))
	switch f.rng.IntN(5) {
	case 0:
		p := f.abandoned(epoch)
		m.Prior = &p
	case 1:
		m.Decision = f.decision(epoch, Open)
	case 2:
		m.Decision, m.Rival = f.decision(epoch, Started), f.decision(epoch+1, Started)
	default:
		m.Decision = f.decision(epoch, Started)
	}
	return m
}

// TestForgedDecisionsMoveNobody: with a thief from the first moment on. Who
// knows of a started cluster, or runs in one, stays in it for good.
func TestForgedDecisionsMoveNobody(t *testing.T) {
	runs, stayed, forged := min(*simRuns, 2000), 0, 0
	for seed := *simSeed; seed < *simSeed+uint64(runs); seed++ {
		n := 1 + int(seed%5)
		s := newSim(t, seed, n, n)
		s.admitThief()
		violation = ""
		for range 200 {
			s.step()
			s.steal()
			if violation != "" {
				s.fatalf(seed, "%s", violation)
			}
		}
		for i, uid := range s.final {
			if uid != (UID{}) {
				stayed++
				if s.nodes[i].disk.Decision.Servers()[0] == (identity.ID{200}) {
					forged++ // it met the thief first: only an owner's key could help
				}
			}
		}
	}
	t.Logf("RESULT %d schedules with a thief, %d nodes stayed in what they knew had started, %d of them the thief's", runs, stayed, forged)
	if stayed == 0 || stayed == forged {
		t.Error("the schedules do not exercise births under a thief")
	}
}

// TestLateThief: a cluster that all know to have started outlives any forgery,
// and a newcomer that meets both sides is not moved but told.
func TestLateThief(t *testing.T) {
	runs := min(*simRuns, 1000)
	for seed := *simSeed; seed < *simSeed+uint64(runs); seed++ {
		n := 1 + int(seed%5)
		s := newSim(t, seed, n, n)
		violation = ""
		s.heal(seed)
		want := s.nodes[0].disk.Decision.UID()
		s.admitThief()
		for range 150 {
			s.step()
			s.steal()
			if violation != "" {
				s.fatalf(seed, "%s", violation)
			}
		}
		s.heal(seed) // nothing is left to agree on
		for i, node := range s.nodes {
			if d := node.disk.Decision; d == nil || d.UID() != want || d.Result() != Started {
				s.fatalf(seed, "node %d left the cluster", i)
			}
		}
		s.newcomer(seed)
	}
}

// newcomer meets a member and the thief in some order.
func (s *sim) newcomer(seed uint64) {
	core := NewCore(identity.ID{99}, s.net, fakeVerify)
	fresh, err := core.Adopt(State{})
	if err != nil {
		s.t.Fatal(err)
	}
	talk := []Message{s.nodes[0].core.Know(s.nodes[0].disk), {Version: messageVersion, Type: TypeKnow, NetworkID: "sim", Decision: s.thief.decision(9, Started)}}
	if s.rng.IntN(2) == 0 {
		slices.Reverse(talk)
	}
	for _, m := range talk {
		if fresh, _, err = core.Learn(fresh, m); err != nil {
			s.t.Fatal(err)
		}
	}
	honest := s.nodes[0].disk.Decision.UID()
	if fresh.Conflict() == nil {
		s.fatalf(seed, "a newcomer that met both clusters was not told of two")
	}
	// A person says which one.
	fresh = core.Pin(fresh, honest)
	if fresh, _, err = core.Learn(fresh, s.nodes[0].core.Know(s.nodes[0].disk)); err != nil {
		s.t.Fatal(err)
	}
	if d := fresh.Decision; d == nil || d.UID() != honest {
		s.fatalf(seed, "a newcomer does not go where a person sends it")
	}
}

func (s *sim) admitThief() {
	s.thief = &thief{rng: s.rng, network: s.net}
	s.final = make([]UID, len(s.nodes))
	for _, n := range s.nodes {
		s.thief.honest = append(s.thief.honest, n.id)
	}
}

// steal lets the thief speak, nodes join what they know to have started, as
// workers do, and checks that nobody was moved:
//
//	I6  who knew that a cluster had started, or joined one, has it as its decision ever after
func (s *sim) steal() {
	i := s.rng.IntN(len(s.nodes))
	n := s.nodes[i]
	if n.up && s.rng.IntN(2) == 0 {
		step, err := n.core.Handle(n.disk, identity.ID{200}, s.thief.message())
		if err == nil && step.Changed {
			s.save(i, step.State)
		}
	}
	for i, n := range s.nodes {
		d := n.disk.Decision
		if d != nil && !slices.Contains(s.thief.known, d.UID()) {
			s.thief.known = append(s.thief.known, d.UID())
		}
		if s.final[i] == (UID{}) && d != nil && d.Result() == Started {
			s.final[i] = d.UID()
			if n.disk.Rival == nil && s.rng.IntN(2) == 0 {
				n.disk = n.core.Pin(n.disk, d.UID())
			}
		}
		if s.final[i] != (UID{}) && (d == nil || d.UID() != s.final[i]) {
			violation = "I6: a node was moved out of a started cluster"
		}
	}
}
