package genesis

import (
	"encoding/hex"
	"errors"

	"github.com/kairos-io/kairos/overlay/identity"
)

// ErrOtherNetwork is returned for a state that was written under another token or network_id.
var ErrOtherNetwork = errors.New("votes on disk are for another network token or network_id")

// Core is the acceptor and learner of one node. It holds no state and does no
// I/O: every method takes a State and returns the next.
//
// Contract: a reply may be sent only after the State that came with it is
// durable. When saving fails, reply and State are both to be dropped, and the
// Core used with the old State again.
type Core struct {
	self    identity.ID
	network Network
	verify  VerifyFunc
}

// NewCore returns the core of node self. verify nil means identity.Verify.
func NewCore(self identity.ID, n Network, verify VerifyFunc) Core {
	if verify == nil {
		verify = identity.Verify
	}
	return Core{self: self, network: n, verify: verify}
}

// name tells the votes of one network from those of another.
func (n Network) name() string { return hex.EncodeToString(n.Fingerprint[:8]) + "/" + n.ID }

// Adopt checks that s belongs to this network and claims a zero State for it.
func (c Core) Adopt(s State) (State, error) {
	if s.Network != "" && s.Network != c.network.name() {
		return s, ErrOtherNetwork
	}
	s.Network = c.network.name()
	return s, nil
}

// Abstain returns s with no right to vote in epochs up to e: for a node that
// lost its state and may have voted there. It still learns.
func (c Core) Abstain(s State, e uint64) State {
	s.Abstain = max(s.Abstain, e)
	return s
}

// Pin returns s with uid as this node's own cluster: the one that it runs in, or
// that a person named. Another that was the decision becomes a rival. The zero
// UID takes the word back and leaves the rest as it is.
func (c Core) Pin(s State, uid UID) State {
	s.Own = uid
	if uid.IsZero() {
		return s
	}
	cur, rival := s.Decision, s.Rival
	if cur != nil && cur.UID() != uid {
		s.Decision, s.Rival = nil, cur
	}
	if rival != nil && rival.UID() == uid {
		s.Decision = rival
		if cur == nil {
			s.Rival = nil
		}
	}
	return c.settled(s)
}

// Step is the outcome of a message.
type Step struct {
	State   State
	Changed bool    // State must be saved before Reply is sent
	Reply   Message // to be sent back
	Sign    []byte  // not nil: to be signed under SignContext into Reply.Vote.Signature, after saving
}

// Handle answers a message from node from, which the caller has authenticated.
// An error means that the message is refused and nothing changed.
func (c Core) Handle(s State, from identity.ID, m Message) (Step, error) {
	if err := m.check(); err != nil {
		return Step{State: s}, err
	}
	if m.NetworkID != c.network.ID {
		return Step{State: s}, invalid("network_id %q, this is %q", m.NetworkID, c.network.ID)
	}
	next, changed, err := c.Learn(s, m)
	if err != nil {
		return Step{State: s}, err
	}
	switch m.Type {
	case TypeAsk, TypeKnow:
		return Step{State: next, Changed: changed, Reply: c.know(next)}, nil
	case TypePrepare, TypeAccept:
	default:
		return Step{State: s}, invalid("%q is an answer", m.Type)
	}
	if m.Ballot.Proposer != from {
		return Step{State: s}, invalid("ballot of %s from %s", m.Ballot.Proposer.Short(), from.Short())
	}
	step := c.vote(next, m)
	step.Changed = step.Changed || changed
	return step, nil
}

// Learn adds the knowledge that came with m. An error means that some proof in
// it is not valid; nothing is learned then.
func (c Core) Learn(s State, m Message) (next State, changed bool, err error) {
	next = s
	if m.Prior != nil {
		if next, err = c.learnAbandoned(next, m.Prior); err != nil {
			return s, false, err
		}
	}
	for _, d := range []*Decision{m.Decision, m.Rival} {
		if d == nil {
			continue
		}
		if next, err = c.learnDecision(next, d); err != nil {
			return s, false, err
		}
	}
	changed = next.epoch() != s.epoch() || next.Decision != s.Decision || next.Rival != s.Rival || next.Abstain != s.Abstain
	return next, changed, nil
}

// vote is the acceptor: Prepare and Accept.
func (c Core) vote(s State, m Message) Step {
	mine := s.acceptance(m.Register)
	if !c.votable(s, m) || m.Ballot.Compare(mine.Promised) < 0 {
		reply := c.know(s)
		reply.Type, reply.Register, reply.Ballot, reply.Promised = TypeReject, m.Register, m.Ballot, mine.Promised
		return Step{State: s, Reply: reply}
	}
	reply := c.message(TypePromise, m.Register, m.Ballot)
	step := Step{State: s}
	if m.Type == TypePrepare {
		reply.Accepted, reply.Value = mine.Accepted, mine.Value
		if mine.Promised != m.Ballot {
			mine.Promised, step.Changed = m.Ballot, true
		}
	} else {
		reply.Type, reply.Vote = TypeAccepted, &Vote{Voter: c.self}
		step.Sign = c.network.signedBytes(m.Register, m.Ballot, *m.Value)
		if mine.Accepted != m.Ballot {
			mine.Promised, mine.Accepted, mine.Value, step.Changed = m.Ballot, m.Ballot, m.Value, true
		}
	}
	if step.Changed {
		step.State = s.withAcceptance(mine)
	}
	step.Reply = reply
	return step
}

// votable reports whether this node may vote on what m asks at all. It votes
// on Genesis of its epoch until it knows a decision or is pinned to a cluster,
// then on that decision's outcome until it knows it, and on nothing else. It
// helps nobody to give its own cluster up.
func (c Core) votable(s State, m Message) bool {
	r := m.Register
	if r.Epoch != s.epoch() || s.abstains() {
		return false
	}
	if r.Kind == GenesisRegister {
		if s.Decision != nil || !s.Own.IsZero() {
			return false
		}
	} else if s.Decision == nil || s.Decision.Epoch() != r.Epoch || s.Decision.Outcome != nil ||
		m.Value != nil && (m.Value.UID != s.Decision.UID() || m.Value.Outcome == Abandoned && m.Value.UID == s.Own) {
		return false
	}
	// One ballot carries one value. A proposer that says two is broken.
	mine := s.acceptance(r)
	return m.Type != TypeAccept || mine.Accepted != m.Ballot || mine.Value.equal(*m.Value)
}

// know is a message with all that this node can prove.
func (c Core) know(s State) Message {
	return Message{Version: messageVersion, Type: TypeKnow, NetworkID: c.network.ID,
		Decision: s.Decision, Rival: s.Rival, Prior: s.Prior}
}

// Know returns the message that tells another node all that this one can prove.
func (c Core) Know(s State) Message { return c.know(s) }

// Ask returns the message that asks another node for all that it can prove.
func (c Core) Ask() Message {
	return Message{Version: messageVersion, Type: TypeAsk, NetworkID: c.network.ID}
}

func (c Core) message(t Type, r Register, b Ballot) Message {
	return Message{Version: messageVersion, Type: t, NetworkID: c.network.ID, Register: r, Ballot: b}
}
