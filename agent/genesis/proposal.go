package genesis

import (
	"maps"
	"slices"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Stage is how far a proposal has come.
type Stage uint8

// The stages: preparing ──> accepting ──> decided; failed from the first two.
const (
	Preparing Stage = iota // collects promises
	Accepting              // collects votes for one value
	Complete               // Certificate is there
	Failed                 // somebody promised a higher ballot, or knows better
)

// Proposal is one attempt, under one ballot, to have a register decided. It
// lives in memory only: after a restart a new attempt takes a higher ballot.
type Proposal struct {
	core     Core
	stage    Stage
	register Register
	ballot   Ballot
	prepare  Message

	want     Value                // what this node would like
	promised map[identity.ID]bool // who promised
	best     Ballot               // the highest ballot that a promise reported as accepted
	value    Value                // what is proposed: of best where there is one, else want
	votes    map[identity.ID]Vote
	higher   uint64 // highest round that a rejection reported
}

// Begin starts an attempt above round atLeast. The State carries this node's
// own promise and must be durable before the proposal's first message is sent:
// it is what keeps a restarted node from using the ballot again. ok is false
// when this node may not vote on the register itself, since it is decided,
// closed or not open yet.
func (c Core) Begin(s State, r Register, want Value, atLeast uint64) (next State, p *Proposal, ok bool) {
	ballot := Ballot{Round: max(s.acceptance(r).Promised.Round, atLeast) + 1, Proposer: c.self}
	if r.valid() != nil || want.validFor(r) != nil || ballot.Round > maxRound {
		return s, nil, false
	}
	m := c.message(TypePrepare, r, ballot)
	m.Decision, m.Prior = s.Decision, s.Prior // what an acceptor must know to vote here
	step := c.vote(s, m)
	if step.Reply.Type != TypePromise {
		return s, nil, false
	}
	p = &Proposal{core: c, register: r, ballot: ballot, prepare: m, want: want,
		promised: map[identity.ID]bool{}, votes: map[identity.ID]Vote{}}
	p.Deliver(c.self, step.Reply)
	return step.State, p, true
}

// Stage returns how far the attempt has come.
func (p *Proposal) Stage() Stage { return p.stage }

// Moot reports whether the attempt has become pointless, since s already knows
// what the register decided or has gone on to another epoch.
func (p *Proposal) Moot(s State) bool { return !p.core.votable(s, p.prepare) }

// Higher returns the highest round heard of in rejections: what the next attempt must exceed.
func (p *Proposal) Higher() uint64 { return p.higher }

// Message returns what is to be sent to everybody at this stage. In stage
// Accepting the proposer hands it to its own Core too (and saves and signs).
func (p *Proposal) Message() Message {
	if p.stage == Preparing {
		return p.prepare
	}
	m := p.core.message(TypeAccept, p.register, p.ballot)
	m.Value, m.Decision, m.Prior = &p.value, p.prepare.Decision, p.prepare.Prior
	return m
}

// Deliver adds a node's answer. Answers of other attempts, repeated and late
// ones are ignored. Knowledge in an answer is for Core.Learn.
func (p *Proposal) Deliver(from identity.ID, m Message) {
	if m.Register != p.register || m.Ballot != p.ballot || p.stage == Complete || p.stage == Failed {
		return
	}
	switch {
	case m.Type == TypeReject:
		// A rejection for another reason (the node abstains, or is not yet where
		// we are) takes nothing away from the others' answers; if it knows better,
		// Learn will tell, and then Moot.
		if m.Promised.Compare(p.ballot) > 0 {
			p.higher, p.stage = max(p.higher, m.Promised.Round), Failed
		}
	case m.Type == TypePromise && p.stage == Preparing:
		p.addPromise(from, m)
	case m.Type == TypeAccepted && p.stage == Accepting:
		p.addVote(from, m)
	}
}

func (p *Proposal) addPromise(from identity.ID, m Message) {
	p.promised[from] = true
	// A value that may have been decided must be proposed again: that of the
	// highest ballot among any Q answers.
	if m.Value != nil && m.Accepted.Compare(p.best) > 0 {
		p.best, p.value = m.Accepted, *m.Value
	}
	if len(p.promised) < p.core.network.Quorum {
		return
	}
	if p.best.IsZero() {
		p.value = p.want
	}
	p.stage = Accepting
}

func (p *Proposal) addVote(from identity.ID, m Message) {
	msg := p.core.network.signedBytes(p.register, p.ballot, p.value)
	if m.Vote.Voter != from || !p.core.verify(from, SignContext, msg, m.Vote.Signature) {
		return
	}
	p.votes[from] = *m.Vote
	if len(p.votes) >= p.core.network.Quorum {
		p.stage = Complete
	}
}

// Certificate returns the proof once the stage is Complete.
func (p *Proposal) Certificate() Certificate {
	votes := slices.SortedFunc(maps.Values(p.votes), func(a, b Vote) int { return a.Voter.Compare(b.Voter) })
	return Certificate{Register: p.register, Ballot: p.ballot, Value: p.value, Votes: votes}
}

// Result returns the certificate as the knowledge that it makes, for
// Core.Learn and for everybody else.
func (p *Proposal) Result() Message {
	m := p.core.message(TypeKnow, Register{}, Ballot{})
	cert := p.Certificate()
	switch {
	case p.register.Kind == GenesisRegister:
		m.Decision = &Decision{Genesis: cert, Prior: p.prepare.Prior}
	case cert.Value.Outcome == Abandoned:
		m.Prior = &cert
	default:
		d := *p.prepare.Decision
		d.Outcome = &cert
		m.Decision = &d
	}
	return m
}
