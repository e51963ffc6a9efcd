package genesis

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// ErrInvalid is returned, wrapped, for a message or a proof that is not valid.
var ErrInvalid = errors.New("invalid genesis message")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// Network is what every node of one cluster-to-be agrees on without talking.
type Network struct {
	Fingerprint [32]byte // token.Keys().Genesis: public name of the network
	ID          string   // network_id
	Nodes       int      // n, as declared in the token
	Quorum      int      // Q = n/2+1
}

// VerifyFunc checks a signature; identity.Verify is the real one.
type VerifyFunc func(id identity.ID, context string, msg, sig []byte) bool

// valid reports whether r names a register.
func (r Register) valid() error {
	if r.Kind != GenesisRegister && r.Kind != OutcomeRegister || r.Epoch == 0 || r.Epoch > maxEpoch {
		return invalid("register %q of epoch %d", r.Kind, r.Epoch)
	}
	return nil
}

// validFor reports whether v may be decided in r.
func (v Value) validFor(r Register) error {
	if v.UID.IsZero() {
		return invalid("value without a cluster uid")
	}
	if r.Kind == OutcomeRegister {
		if len(v.Servers) != 0 || !v.Seed.IsZero() || v.Outcome != Started && v.Outcome != Abandoned {
			return invalid("outcome %q with %d servers", v.Outcome, len(v.Servers))
		}
		return nil
	}
	if v.Outcome != Open || len(v.Servers) == 0 || len(v.Servers) > MaxServers {
		return invalid("genesis value with %d servers and outcome %q", len(v.Servers), v.Outcome)
	}
	if v.UID != uidOf(v.Seed, v.Servers) {
		return invalid("uid %s is not of these servers", v.UID)
	}
	for i, id := range v.Servers {
		if id.IsZero() || slices.Contains(v.Servers[:i], id) {
			return invalid("server %d is nobody or named twice", i)
		}
	}
	return nil
}

// NewValue returns what is proposed for a Genesis register. The UID is a hash of
// seed (random, 128 bits) and servers, so that nobody can name other servers for
// a cluster that is known by its UID alone.
func NewValue(seed UID, servers []identity.ID) Value {
	return Value{UID: uidOf(seed, servers), Seed: seed, Servers: servers}
}

func uidOf(seed UID, servers []identity.ID) UID {
	h := sha256.New()
	h.Write([]byte("kairos cluster uid"))
	h.Write(seed[:])
	for _, id := range servers {
		h.Write(id[:])
	}
	return UID(h.Sum(nil)[:len(UID{})])
}

// equal reports whether two values are the same.
func (v Value) equal(o Value) bool {
	return v.UID == o.UID && v.Outcome == o.Outcome && slices.Equal(v.Servers, o.Servers)
}

// signedBytes is what a vote signs: everything that the vote is about, in one
// spelling, bound to the network so that it is worth nothing elsewhere.
func (n Network) signedBytes(r Register, b Ballot, v Value) []byte {
	out := make([]byte, 0, 192+32*len(v.Servers))
	out = append(out, n.Fingerprint[:]...)
	out = binary.BigEndian.AppendUint16(out, uint16(len(n.ID)))
	out = append(out, n.ID...)
	out = binary.BigEndian.AppendUint16(out, uint16(n.Quorum))
	out = append(out, map[Kind]byte{GenesisRegister: 1, OutcomeRegister: 2}[r.Kind])
	out = binary.BigEndian.AppendUint64(out, r.Epoch)
	out = binary.BigEndian.AppendUint64(out, b.Round)
	out = append(out, b.Proposer[:]...)
	out = append(out, v.UID[:]...)
	out = append(out, map[Outcome]byte{Open: 0, Started: 1, Abandoned: 2}[v.Outcome], byte(len(v.Servers)))
	for _, id := range v.Servers {
		out = append(out, id[:]...)
	}
	return out
}

// VerifyCertificate reports whether c proves that its register is decided.
// Anybody can do it who knows the network.
func (c Core) VerifyCertificate(cert Certificate) error {
	if err := cert.Register.valid(); err != nil {
		return err
	}
	if err := cert.Value.validFor(cert.Register); err != nil {
		return err
	}
	if len(cert.Votes) < c.network.Quorum || len(cert.Votes) > maxVotes {
		return invalid("certificate with %d votes, the quorum is %d", len(cert.Votes), c.network.Quorum)
	}
	msg := c.network.signedBytes(cert.Register, cert.Ballot, cert.Value)
	seen := make(map[identity.ID]bool, len(cert.Votes))
	for _, v := range cert.Votes {
		if seen[v.Voter] {
			return invalid("two votes of %s", v.Voter.Short())
		}
		seen[v.Voter] = true
		if !c.verify(v.Voter, SignContext, msg, v.Signature) {
			return invalid("signature of %s", v.Voter.Short())
		}
	}
	return nil
}

// VerifyDecision reports whether d proves which cluster its epoch has, that the
// epoch before was abandoned, and its outcome where it claims one.
func (c Core) VerifyDecision(d Decision) error {
	if d.Genesis.Register.Kind != GenesisRegister {
		return invalid("decision about %q", d.Genesis.Register.Kind)
	}
	if err := c.VerifyCertificate(d.Genesis); err != nil {
		return err
	}
	if (d.Prior != nil) != (d.Epoch() > 1) {
		return invalid("epoch %d with or without proof of the one before", d.Epoch())
	}
	if d.Prior != nil {
		if err := c.verifyOutcome(*d.Prior, d.Epoch()-1, Abandoned); err != nil {
			return err
		}
	}
	if d.Outcome == nil {
		return nil
	}
	if d.Outcome.Value.UID != d.UID() {
		return invalid("outcome of another cluster")
	}
	return c.verifyOutcome(*d.Outcome, d.Epoch(), Started)
}

// verifyOutcome reports whether cert proves this outcome of this epoch.
func (c Core) verifyOutcome(cert Certificate, epoch uint64, want Outcome) error {
	if cert.Register != (Register{OutcomeRegister, epoch}) || cert.Value.Outcome != want {
		return invalid("want proof of %s in epoch %d", want, epoch)
	}
	return c.VerifyCertificate(cert)
}

// better reports whether an undisputed node should rather be in a than in b: in
// the one that is started, then in that of the higher epoch, then of the lower UID.
func better(a, b *Decision) bool {
	if sa, sb := a.Result() == Started, b.Result() == Started; sa != sb {
		return sa
	}
	if a.Epoch() != b.Epoch() {
		return a.Epoch() > b.Epoch()
	}
	ua, ub := a.UID(), b.UID()
	return slices.Compare(ua[:], ub[:]) < 0
}

// supersedes reports whether a is simply the successor of b: b was never
// started, and where a follows b directly it is b that was abandoned.
func supersedes(a, b *Decision) bool {
	if a.Epoch() <= b.Epoch() || b.Result() == Started {
		return false
	}
	return a.Epoch() > b.Epoch()+1 || a.Prior.Value.UID == b.UID()
}

// learnDecision adds a decision to what is known. An invalid one is an error
// and changes nothing.
//
// A started cluster is final. Whoever has the token can make keys of its own
// that sign a certificate for any epoch, so no later decision, and no higher
// epoch, moves a node that knows of a started cluster or is pinned to one: the
// other is kept as a rival, to be told.
func (c Core) learnDecision(s State, d *Decision) (State, error) {
	if known(s.Decision, d) || known(s.Rival, d) {
		return s, nil // also spares the signatures of what everybody repeats
	}
	if err := c.VerifyDecision(*d); err != nil {
		return s, err
	}
	s = c.remembered(s, d.Prior, &d.Genesis, d.Outcome)
	cur, pin := s.Decision, s.pin()
	switch {
	case cur != nil && cur.UID() == d.UID():
		s.Decision = merged(cur, d)
	case s.Rival != nil && s.Rival.UID() == d.UID():
		s.Rival = merged(s.Rival, d)
	case !pin.IsZero() && pin != d.UID():
		s.Rival = rivalOf(s.Rival, d)
	case cur == nil:
		// Of an abandoned epoch only a started cluster counts: it should not be
		// there, and it must not be ignored.
		if d.Epoch() < s.epoch() && d.Result() != Started && pin.IsZero() {
			return s, nil
		}
		s.Decision = d
	case supersedes(d, cur):
		s.Decision = d
	case supersedes(cur, d):
		return s, nil
	case better(d, cur):
		s.Decision, s.Rival = d, rivalOf(s.Rival, cur)
	default:
		s.Rival = rivalOf(s.Rival, d)
	}
	return c.settled(s), nil
}

// remembered compares verified proofs with this node's own memory. A vote under its
// key that it does not know of was given by a state that is gone: it was put back to
// an earlier one, or is a copy of a machine. What else it forgot cannot be known, so it
// votes for nothing any more. It still learns.
func (c Core) remembered(s State, proofs ...*Certificate) State {
	for _, p := range proofs {
		// Votes of earlier epochs are dropped on purpose, and none follows there.
		if p == nil || p.Register.Epoch < s.epoch() || s.acceptance(p.Register).Accepted.Compare(p.Ballot) >= 0 {
			continue
		}
		if slices.ContainsFunc(p.Votes, func(v Vote) bool { return v.Voter == c.self }) {
			return c.Abstain(s, agentapi.EveryEpoch)
		}
	}
	return s
}

// settled ends a change of Decision and Rival: the epoch follows the decision,
// and what the decision simply succeeds is no rival.
func (c Core) settled(s State) State {
	if s.Decision == nil {
		return s
	}
	// Two of one cluster: a rival's outcome may be the news.
	if s.Rival != nil && (s.Rival.UID() == s.Decision.UID() || supersedes(s.Decision, s.Rival)) {
		s.Rival = nil
	}
	if e := s.Decision.Epoch(); e > s.epoch() {
		s = s.atEpoch(e, s.Decision.Prior)
	}
	return s
}

// known reports whether old already says all that d says.
func known(old, d *Decision) bool {
	return old != nil && old.UID() == d.UID() && (d.Outcome == nil || old.Outcome != nil)
}

// merged is what two decisions of one cluster prove together. A UID names the
// same servers in whatever epoch.
func merged(old, d *Decision) *Decision {
	switch {
	case old.Outcome != nil || d.Outcome == nil:
		return old
	case old.Epoch() == d.Epoch():
		with := *old
		with.Outcome = d.Outcome
		return &with
	}
	return d
}

// rivalOf is the rival to remember: the first one, but a started one rather than
// an open one. So it changes twice at most, however many are forged.
func rivalOf(old, d *Decision) *Decision {
	if old == nil || old.Result() != Started && d.Result() == Started {
		return d
	}
	return old
}

// learnAbandoned adds the proof that an epoch was abandoned.
func (c Core) learnAbandoned(s State, cert *Certificate) (State, error) {
	e := cert.Register.Epoch
	if e < s.epoch() {
		return s, nil
	}
	if err := c.verifyOutcome(*cert, e, Abandoned); err != nil {
		return s, err
	}
	s = c.remembered(s, cert)
	// A started cluster is final, and so is the one that this node is in. That it
	// was abandoned too can be proven only where more nodes voted than the token
	// declares, or by who forges; the next epoch's decision will show as a rival.
	if !s.pin().IsZero() {
		return s, nil
	}
	if cur := s.Decision; cur != nil {
		if cur.Epoch() == e && cur.UID() != cert.Value.UID || cur.Epoch() > e {
			return s, nil
		}
		s.Decision = nil
	}
	return s.atEpoch(e+1, cert), nil
}
