package genesis

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// bench is a few cores with real keys that vote as told.
type bench struct {
	t       *testing.T
	network Network
	keys    []identity.Key // by ID
}

func newBench(t *testing.T, declared, n int) *bench {
	b := &bench{t: t, network: Network{Fingerprint: [32]byte{3}, ID: "home", Nodes: declared, Quorum: declared/2 + 1}}
	for range n {
		k, err := identity.Generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		b.keys = append(b.keys, k)
	}
	slices.SortFunc(b.keys, func(x, y identity.Key) int { return x.ID().Compare(y.ID()) })
	return b
}

func (b *bench) core(i int) Core { return NewCore(b.keys[i].ID(), b.network, nil) }

// cert makes a certificate signed by some of the keys.
func (b *bench) cert(r Register, v Value, voters ...int) *Certificate {
	c := &Certificate{Register: r, Ballot: Ballot{1, b.keys[0].ID()}, Value: v}
	msg := b.network.signedBytes(r, c.Ballot, v)
	for _, i := range voters {
		c.Votes = append(c.Votes, Vote{Voter: b.keys[i].ID(), Signature: b.keys[i].Sign(SignContext, msg)})
	}
	return c
}

// value is that of cluster n: its UID is b.uid(n).
func (b *bench) value(n byte) Value { return NewValue(UID{n}, []identity.ID{b.keys[0].ID()}) }

func (b *bench) uid(n byte) UID { return b.value(n).UID }

func (b *bench) decision(epoch uint64, uid byte, result Outcome) *Decision {
	d := &Decision{Genesis: *b.cert(Register{GenesisRegister, epoch}, b.value(uid), 0, 1)}
	if epoch > 1 {
		d.Prior = b.abandoned(epoch-1, 0xee)
	}
	if result == Started {
		d.Outcome = b.cert(Register{OutcomeRegister, epoch}, Value{UID: b.uid(uid), Outcome: Started}, 0, 1)
	}
	return d
}

func (b *bench) abandoned(epoch uint64, uid byte) *Certificate {
	return b.cert(Register{OutcomeRegister, epoch}, Value{UID: b.uid(uid), Outcome: Abandoned}, 0, 1)
}

func TestVerifyDecision(t *testing.T) {
	b := newBench(t, 3, 3)
	stranger := newBench(t, 3, 3)
	tests := []struct {
		name   string
		change func(d *Decision)
		ok     bool
	}{
		{"as it is", func(*Decision) {}, true},
		{"more votes than needed", func(d *Decision) {
			d.Genesis = *b.cert(d.Genesis.Register, d.Genesis.Value, 0, 1, 2)
		}, true},
		{"one vote short", func(d *Decision) { d.Genesis.Votes = d.Genesis.Votes[:1] }, false},
		{"one vote twice", func(d *Decision) { d.Genesis.Votes[1] = d.Genesis.Votes[0] }, false},
		{"signature cut", func(d *Decision) { d.Genesis.Votes[0].Signature = d.Genesis.Votes[0].Signature[:63] }, false},
		{"signature of another voter", func(d *Decision) { d.Genesis.Votes[0].Voter = b.keys[2].ID() }, false},
		{"other uid", func(d *Decision) { d.Genesis.Value.UID[3]++ }, false},
		{"other server", func(d *Decision) { d.Genesis.Value.Servers = []identity.ID{b.keys[2].ID()} }, false},
		{"no server", func(d *Decision) { d.Genesis.Value.Servers = nil }, false},
		{"other ballot", func(d *Decision) { d.Genesis.Ballot.Round++ }, false},
		{"other epoch", func(d *Decision) { d.Genesis.Register.Epoch++ }, false},
		{"no uid", func(d *Decision) {
			d.Genesis = *b.cert(d.Genesis.Register, Value{Servers: d.Genesis.Value.Servers}, 0, 1)
		}, false},
		{"another network", func(d *Decision) {
			other := *stranger
			other.keys, other.network = b.keys, stranger.network
			other.network.Fingerprint[0]++
			d.Genesis = *other.cert(d.Genesis.Register, d.Genesis.Value, 0, 1)
		}, false},
		{"outcome of another cluster", func(d *Decision) {
			d.Outcome = b.cert(Register{OutcomeRegister, 2}, Value{UID: UID{77}, Outcome: Started}, 0, 1)
		}, false},
		{"outcome of another epoch", func(d *Decision) {
			d.Outcome = b.cert(Register{OutcomeRegister, 1}, Value{UID: d.UID(), Outcome: Started}, 0, 1)
		}, false},
		{"abandoned shown as outcome", func(d *Decision) {
			d.Outcome = b.cert(Register{OutcomeRegister, 2}, Value{UID: d.UID(), Outcome: Abandoned}, 0, 1)
		}, false},
		{"no proof of the epoch before", func(d *Decision) { d.Prior = nil }, false},
		{"proof of started instead of abandoned", func(d *Decision) {
			d.Prior = b.cert(Register{OutcomeRegister, 1}, Value{UID: UID{1}, Outcome: Started}, 0, 1)
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := b.decision(2, 5, Started)
			tt.change(d)
			err := b.core(2).VerifyDecision(*d)
			if (err == nil) != tt.ok {
				t.Errorf("error %v, want ok %v", err, tt.ok)
			}
			if err != nil && !errors.Is(err, ErrInvalid) {
				t.Errorf("error %v is not ErrInvalid", err)
			}
		})
	}
}

// Whatever the order in which knowledge arrives, the result is the same.
func TestLearnInAnyOrder(t *testing.T) {
	b := newBench(t, 3, 3)
	succeeding := b.decision(2, 2, Open)
	succeeding.Prior = b.abandoned(1, 1)
	low, high := b.decision(1, 9, Open), b.decision(1, 4, Open)
	if better(high, low) {
		low, high = high, low
	}
	tests := []struct {
		name     string
		facts    []Message
		uid      UID // decision; zero for none
		epoch    uint64
		conflict *Conflict
	}{
		{"decision then outcome", []Message{{Decision: b.decision(1, 1, Open)}, {Decision: b.decision(1, 1, Started)}}, b.uid(1), 1, nil},
		{"abandoned", []Message{{Decision: b.decision(1, 1, Open)}, {Prior: b.abandoned(1, 1)}}, UID{}, 2, nil},
		{"successor", []Message{{Decision: b.decision(1, 1, Open)}, {Decision: succeeding}}, b.uid(2), 2, nil},
		{"two births in one epoch", []Message{{Decision: low}, {Decision: high}}, low.UID(), 1, &Conflict{low.UID(), high.UID()}},
		{"two births, one started", []Message{{Decision: b.decision(1, 4, Open)}, {Decision: b.decision(1, 6, Started)}}, b.uid(6), 1, &Conflict{b.uid(6), b.uid(4)}},
		{"successor of another branch", []Message{{Decision: b.decision(1, 1, Open)}, {Decision: b.decision(2, 2, Open)}}, b.uid(2), 2, &Conflict{b.uid(2), b.uid(1)}},
	}
	for _, tt := range tests {
		for _, order := range permutations(len(tt.facts)) {
			t.Run(tt.name, func(t *testing.T) {
				s, c := State{}, b.core(2)
				for _, i := range append(order, order...) { // and repeated
					var err error
					if s, _, err = c.Learn(s, tt.facts[i]); err != nil {
						t.Fatal(err)
					}
				}
				uid := UID{}
				if s.Decision != nil {
					uid = s.Decision.UID()
				}
				// Of a birth that was abandoned before it was heard of, nobody needs to know.
				if got := s.Conflict(); uid != tt.uid || s.epoch() != tt.epoch || !reflect.DeepEqual(got, tt.conflict) {
					t.Errorf("order %v: uid %x epoch %d conflict %v; want %x %d %v", order, uid[0], s.epoch(), got, tt.uid[0], tt.epoch, tt.conflict)
				}
			})
		}
	}
}

func permutations(n int) [][]int {
	if n == 0 {
		return [][]int{{}}
	}
	var out [][]int
	for _, p := range permutations(n - 1) {
		for at := range n {
			out = append(out, slices.Insert(slices.Clone(p), at, n-1))
		}
	}
	return out
}

func TestLearnRefusesForgery(t *testing.T) {
	b := newBench(t, 3, 3)
	forged := b.decision(1, 1, Open)
	forged.Genesis.Votes[0].Signature[0] ^= 1
	for name, m := range map[string]Message{"decision": {Decision: forged}, "rival": {Rival: forged},
		"good and forged": {Prior: b.abandoned(1, 1), Decision: forged}} {
		if s, changed, err := b.core(0).Learn(State{}, m); err == nil || changed || !reflect.DeepEqual(s, State{}) {
			t.Errorf("%s: learned %+v, error %v", name, s, err)
		}
	}
}

func TestAcceptor(t *testing.T) {
	b := newBench(t, 3, 3)
	id := func(i int) identity.ID { return b.keys[i].ID() }
	value := NewValue(UID{1}, []identity.ID{id(0)})
	req := func(typ Type, epoch, round uint64, proposer int, v *Value) Message {
		return Message{Version: 1, Type: typ, NetworkID: "home", Register: Register{GenesisRegister, epoch},
			Ballot: Ballot{round, id(proposer)}, Value: v}
	}
	other := NewValue(UID{2}, []identity.ID{id(1)})
	tests := []struct {
		name  string
		first []Message
		then  Message
		from  int
		want  Type // "" for an error
	}{
		{"first promise", nil, req(TypePrepare, 1, 1, 0, nil), 0, TypePromise},
		{"the same again", []Message{req(TypePrepare, 1, 1, 0, nil)}, req(TypePrepare, 1, 1, 0, nil), 0, TypePromise},
		{"a higher one", []Message{req(TypePrepare, 1, 1, 0, nil)}, req(TypePrepare, 1, 2, 1, nil), 1, TypePromise},
		{"a lower one", []Message{req(TypePrepare, 1, 2, 1, nil)}, req(TypePrepare, 1, 1, 0, nil), 0, TypeReject},
		{"accept under the promise", []Message{req(TypePrepare, 1, 1, 0, nil)}, req(TypeAccept, 1, 1, 0, &value), 0, TypeAccepted},
		{"accept without a promise", nil, req(TypeAccept, 1, 1, 0, &value), 0, TypeAccepted},
		{"accept below the promise", []Message{req(TypePrepare, 1, 2, 1, nil)}, req(TypeAccept, 1, 1, 0, &value), 0, TypeReject},
		{"two values under one ballot", []Message{req(TypeAccept, 1, 1, 0, &value)}, req(TypeAccept, 1, 1, 0, &other), 0, TypeReject},
		{"an epoch that is not open", nil, req(TypePrepare, 2, 1, 0, nil), 0, TypeReject},
		{"ballot of somebody else", nil, req(TypePrepare, 1, 1, 0, nil), 1, ""},
		{"an answer", nil, req(TypePromise, 1, 1, 0, nil), 0, ""},
		{"round zero", nil, req(TypePrepare, 1, 0, 0, nil), 0, ""},
		{"round beyond the bound", nil, req(TypePrepare, 1, maxRound+1, 0, nil), 0, ""},
		{"epoch zero", nil, req(TypePrepare, 0, 1, 0, nil), 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, c := State{}, b.core(2)
			for _, m := range tt.first {
				step, err := c.Handle(s, m.Ballot.Proposer, m)
				if err != nil {
					t.Fatal(err)
				}
				s = step.State
			}
			step, err := c.Handle(s, id(tt.from), tt.then)
			if tt.want == "" {
				if err == nil {
					t.Fatalf("want an error, got %+v", step.Reply)
				}
				return
			}
			if err != nil || step.Reply.Type != tt.want {
				t.Fatalf("reply %q, error %v; want %q", step.Reply.Type, err, tt.want)
			}
			if (step.Sign != nil) != (tt.want == TypeAccepted) {
				t.Errorf("sign %x", step.Sign)
			}
		})
	}
}

// A proposer that crashed after its promise was saved must not use the ballot again.
func TestBallotIsNeverUsedTwice(t *testing.T) {
	b := newBench(t, 5, 5)
	r, want := Register{GenesisRegister, 1}, b.value(1)
	s, seen := State{}, map[Ballot]bool{}
	for range 3 {
		next, p, ok := b.core(0).Begin(s, r, want, 0)
		if !ok || seen[p.ballot] {
			t.Fatalf("ok %v, ballot %v used before", ok, p.ballot)
		}
		seen[p.ballot], s = true, next
	}
}

func TestAbstainer(t *testing.T) {
	b := newBench(t, 3, 3)
	c := b.core(0)
	s := c.Abstain(State{}, 1)
	if _, _, ok := c.Begin(s, Register{GenesisRegister, 1}, b.value(1), 0); ok {
		t.Error("proposes in an epoch that it must not vote in")
	}
	s, _, err := c.Learn(s, Message{Decision: b.decision(1, 1, Started)})
	if err != nil || s.Decision == nil {
		t.Errorf("does not learn: %v", err)
	}
}

// A vote under its own key that a node does not remember was given by a state that is
// gone (fault A8): it must not vote against itself.
func TestForgottenVotes(t *testing.T) {
	b := newBench(t, 3, 3)
	c := b.core(0)
	open := b.decision(1, 1, Open)
	started := &Certificate{}
	*started = *b.cert(Register{OutcomeRegister, 1}, Value{UID: b.uid(1), Outcome: Started}, 0, 1)
	voted := State{}.withAcceptance(Acceptance{Register: open.Genesis.Register, Promised: open.Genesis.Ballot, Accepted: open.Genesis.Ballot, Value: &open.Genesis.Value})
	others := *b.cert(Register{GenesisRegister, 1}, b.value(1), 1, 2)
	for _, tt := range []struct {
		name string
		have State
		m    Message
		want bool // it abstains then
	}{
		{"its own vote, remembered", voted, Message{Decision: open}, false},
		{"its own vote, forgotten", State{}, Message{Decision: open}, true},
		{"others' votes", State{}, Message{Decision: &Decision{Genesis: others}}, false},
		{"its own vote on the outcome, forgotten", voted, Message{Decision: &Decision{Genesis: open.Genesis, Outcome: started}}, true},
		{"its own vote to abandon, forgotten", voted, Message{Prior: b.abandoned(1, 1)}, true},
		{"a cluster of an epoch that it has left", State{Epoch: 2}, Message{Decision: b.decision(1, 1, Started)}, false},
		{"its own vote in a later epoch, forgotten", voted, Message{Decision: b.decision(2, 1, Open)}, true},
		{"its own vote for a rival, forgotten", State{Own: b.uid(2)}, Message{Decision: open}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, changed, err := c.Learn(tt.have, tt.m)
			if err != nil || !changed && tt.want {
				t.Fatal(changed, err)
			}
			if got := s.abstains(); got != tt.want {
				t.Errorf("abstains %v, want %v", got, tt.want)
			}
			r := Register{OutcomeRegister, s.epoch()}
			if _, _, ok := c.Begin(s, r, Value{UID: b.uid(1), Outcome: Abandoned}, 0); ok && tt.want {
				t.Error("votes all the same")
			}
		})
	}
}

// The largest honest message must fit: 15 declared nodes, a quorum of 8, all knowledge at once.
func TestLargestMessageFits(t *testing.T) {
	b := newBench(t, 15, 8)
	all := []int{0, 1, 2, 3, 4, 5, 6, 7}
	var servers []identity.ID
	for i := range MaxServers {
		servers = append(servers, b.keys[i].ID())
	}
	d := &Decision{Genesis: *b.cert(Register{GenesisRegister, 2}, NewValue(UID{1}, servers), all...),
		Outcome: b.cert(Register{OutcomeRegister, 2}, Value{UID: uidOf(UID{1}, servers), Outcome: Started}, all...),
		Prior:   b.cert(Register{OutcomeRegister, 1}, Value{UID: UID{2}, Outcome: Abandoned}, all...)}
	raw, err := b.core(0).Know(State{Decision: d, Rival: d, Prior: d.Prior}).Encode()
	if err != nil || len(raw) > MaxMessage/2 {
		t.Errorf("%d bytes, error %v", len(raw), err)
	}
	if err := b.core(0).VerifyDecision(*d); err != nil {
		t.Error(err)
	}
}

func TestElector(t *testing.T) {
	id := func(i byte) identity.ID { return identity.ID{i} }
	node := func(i byte, wanted agentapi.Wanted) Member { return Member{ID: id(i), Connected: true, Wanted: wanted} }
	silent := func(i byte, wanted agentapi.Wanted) Member {
		return Member{ID: id(i), Connected: true, Wanted: wanted, Abstains: true}
	}
	three := []Member{node(1, ""), node(2, ""), node(3, "")}
	tests := []struct {
		name     string
		declared int
		self     byte
		members  []Member
		due      time.Duration // after the view became so; -1: never
	}{
		{"all there, lowest", 3, 1, three, 0},
		{"all there, second", 3, 2, three, RankDelay + time.Second},
		{"all there, third", 3, 3, three, 2*RankDelay + time.Second},
		{"quorum there, lowest", 3, 2, three[1:], SettleTime},
		{"more than declared", 2, 1, three, SettleTime},
		{"too few", 3, 1, three[:1], -1},
		{"unconnected do not count", 3, 1, []Member{node(1, ""), {ID: id(2)}, {ID: id(3)}}, -1},
		{"alone with a token for one", 1, 1, three[:1], SettleTime},
		{"a worker", 3, 1, []Member{node(1, agentapi.WantedWorker), node(2, ""), node(3, "")}, -1},
		{"after a worker", 3, 2, []Member{node(1, agentapi.WantedWorker), node(2, ""), node(3, "")}, 0},
		{"beside a master", 3, 1, []Member{node(1, ""), node(2, ""), node(3, agentapi.WantedMaster)}, -1},
		{"a master", 3, 3, []Member{node(1, ""), node(2, ""), node(3, agentapi.WantedMaster)}, 0},
		{"beside a master that does not vote", 3, 1, []Member{node(1, ""), node(2, ""), silent(3, agentapi.WantedMaster)}, SettleTime},
		{"too few that vote", 3, 1, []Member{node(1, ""), silent(2, ""), silent(3, "")}, -1},
		{"after one that does not vote", 3, 2, []Member{silent(1, ""), node(2, ""), node(3, ""), node(4, "")}, 0},
		{"one that does not vote itself", 3, 1, []Member{silent(1, ""), node(2, ""), node(3, "")}, -1},
		{"second of two masters", 3, 3, []Member{node(1, ""), node(2, agentapi.WantedMaster), node(3, agentapi.WantedMaster)}, RankDelay + time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := Elector{Self: id(tt.self), Network: Network{Nodes: tt.declared, Quorum: tt.declared/2 + 1}, Jitter: time.Second}
			start := time.Hour
			look := func(after time.Duration) Verdict { return e.Look(start+after, tt.members) }
			first := look(0)
			if first.Due != (tt.due == 0) || !first.Due && first.Reason == "" {
				t.Fatalf("at once: %+v", first)
			}
			if tt.due < 0 {
				if v := look(24 * time.Hour); v.Due {
					t.Errorf("due in the end: %+v", v)
				}
				return
			}
			if tt.due > 0 && (look(tt.due-1).Due || first.At != start+tt.due) {
				t.Errorf("due too early, or at %v instead of %v", first.At-start, tt.due)
			}
			if !look(tt.due).Due {
				t.Error("not due in time")
			}
			// A change of the view starts the time anew.
			tt.members = append(slices.Clone(tt.members), node(8, agentapi.WantedWorker), node(9, agentapi.WantedWorker))
			if tt.due > 0 && look(tt.due).Due {
				t.Error("due although the view changed")
			}
		})
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add([]byte(`{"v":1,"type":"ask","network_id":"home"}`))
	f.Add([]byte(`{"v":1,"type":"prepare","network_id":"home","register":{"kind":"genesis","epoch":1},"ballot":{"round":1,"proposer":"aeaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}`))
	c := NewCore(identity.ID{1}, Network{ID: "home", Nodes: 3, Quorum: 2}, func(identity.ID, string, []byte, []byte) bool { return true })
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := DecodeMessage(raw)
		if err != nil {
			return
		}
		again, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeMessage(again)
		if err != nil && len(again) <= MaxMessage {
			t.Fatalf("own encoding refused: %v", err)
		}
		if err == nil && !reflect.DeepEqual(back, m) {
			a, _ := json.Marshal(back)
			if string(a) != string(again) {
				t.Fatalf("changes: %s, %s", a, again)
			}
		}
		// Signatures are all taken as good: the core must stand whatever is signed.
		step, err := c.Handle(State{}, m.Ballot.Proposer, m)
		if err != nil {
			return
		}
		if step.State.epoch() < 1 {
			t.Fatal("no epoch")
		}
	})
}
