package genesis

import (
	"bytes"
	"encoding/json"
	"io"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Type is what a message asks or answers.
type Type string

// The messages. Prepare, Accept, Ask and Know are sent; Promise, Accepted,
// Reject and Know are answers.
//
//	proposer                acceptor
//	   │ Prepare(ballot) ──────> │  saves the promise
//	   │ <── Promise(accepted) ──│  or Reject(promised, knowledge)
//	   │ Accept(ballot, value) ─>│  saves the vote
//	   │ <── Accepted(vote) ─────│  or Reject
//	   │ Know(decision) ────────>│  saves the decision
const (
	TypePrepare  Type = "prepare"
	TypePromise  Type = "promise"
	TypeAccept   Type = "accept"
	TypeAccepted Type = "accepted"
	TypeReject   Type = "reject"
	TypeAsk      Type = "ask"  // tell me what is decided
	TypeKnow     Type = "know" // this is decided
)

// messageVersion is the version of the encoding.
const messageVersion = 1

// maxRound bounds ballots, so that no message can use up all rounds by accident.
const maxRound = 1 << 40

// maxEpoch bounds epochs, each of which takes a quarter of an hour to give up.
const maxEpoch = 1 << 32

// Message is everything that nodes say to each other. Which fields are set
// depends on the type; knowledge may come with any.
type Message struct {
	Version   int      `json:"v"`
	Type      Type     `json:"type"`
	NetworkID string   `json:"network_id"`
	Register  Register `json:"register,omitzero"`
	Ballot    Ballot   `json:"ballot,omitzero"` // of the attempt
	Value     *Value   `json:"value,omitempty"` // accept: the value; promise: what was accepted before
	Accepted  Ballot   `json:"accepted,omitzero"`
	Promised  Ballot   `json:"promised,omitzero"` // reject: why
	Vote      *Vote    `json:"vote,omitempty"`    // accepted

	Decision *Decision    `json:"decision,omitempty"`
	Rival    *Decision    `json:"rival,omitempty"`
	Prior    *Certificate `json:"prior,omitempty"` // an abandonment
}

// Encode returns the message as it travels.
func (m Message) Encode() ([]byte, error) { return json.Marshal(m) }

// DecodeMessage reads what Encode wrote. The result has the form of a message;
// its proofs are not verified yet.
func DecodeMessage(raw []byte) (Message, error) {
	if len(raw) > MaxMessage {
		return Message{}, invalid("%d bytes, at most %d", len(raw), MaxMessage)
	}
	var m Message
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&m); err != nil {
		return Message{}, invalid("%v", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Message{}, invalid("data after the message")
	}
	if m.Version != messageVersion {
		return Message{}, invalid("version %d, this program speaks %d", m.Version, messageVersion)
	}
	if err := m.checkSizes(); err != nil {
		return Message{}, err
	}
	return m, m.check()
}

// checkSizes bounds the knowledge in a message: it is kept on disk and told on,
// with what this version does not know of it.
func (m Message) checkSizes() error {
	for _, part := range []struct {
		proof any
		there bool
		limit int
	}{
		{m.Decision, m.Decision != nil, maxDecision}, {m.Rival, m.Rival != nil, maxDecision}, {m.Prior, m.Prior != nil, maxProof},
		{m.Value, m.Value != nil, maxProof},
	} {
		if !part.there {
			continue
		}
		raw, err := json.Marshal(part.proof)
		if err != nil {
			return invalid("%v", err)
		}
		if len(raw) > part.limit {
			return invalid("a proof of %d bytes, at most %d", len(raw), part.limit)
		}
	}
	return nil
}

// ReadProof reads and verifies what Driver.Proof returned on another node. verify
// nil means identity.Verify.
func ReadProof(n Network, raw []byte, verify VerifyFunc) (*Decision, error) {
	m, err := DecodeMessage(raw)
	if err != nil {
		return nil, err
	}
	if m.Decision == nil || m.NetworkID != n.ID {
		return nil, invalid("no decision on network_id %q", n.ID)
	}
	if err := NewCore(identity.ID{}, n, verify).VerifyDecision(*m.Decision); err != nil {
		return nil, err
	}
	return m.Decision, nil
}

// check reports whether the fields that the type needs are there and possible.
func (m Message) check() error {
	switch m.Type {
	case TypeAsk, TypeKnow:
		return nil
	case TypePrepare, TypePromise, TypeAccept, TypeAccepted, TypeReject:
	default:
		return invalid("type %q", m.Type)
	}
	if err := m.Register.valid(); err != nil {
		return err
	}
	if m.Ballot.Round == 0 || m.Ballot.Round > maxRound || m.Ballot.Proposer.IsZero() {
		return invalid("ballot of round %d", m.Ballot.Round)
	}
	if m.Type == TypePromise && m.Accepted.IsZero() != (m.Value == nil) {
		return invalid("promise with half a vote")
	}
	if m.Type == TypeAccept && m.Value == nil {
		return invalid("accept without a value")
	}
	if m.Type == TypeAccepted && m.Vote == nil {
		return invalid("accepted without a vote")
	}
	if m.Value != nil {
		return m.Value.validFor(m.Register)
	}
	return nil
}
