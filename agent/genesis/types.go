package genesis

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/keepjson"
)

// Specification constants.
const (
	// SignContext is the context of every signature of this package.
	SignContext = "agent-genesis"
	// MaxMessage is the greatest size of an encoded message in bytes.
	MaxMessage = 64 << 10
	// maxDecision and maxProof bound what another node says in bytes: an honest
	// decision has a quarter. So all that a node knows fits into one message,
	// whatever others added to their proofs.
	maxDecision, maxProof = 20 << 10, 8 << 10
	// MaxServers is how many servers a decision may name.
	MaxServers = 7
	// maxVotes bounds a certificate; a quorum is at most 8 (15 declared nodes).
	maxVotes = 64
)

// Timing, all on the monotonic clock. Only liveness depends on it.
const (
	// SettleTime is how long a view of at least Q nodes must not change before one proposes.
	SettleTime = 10 * time.Second
	// RankDelay is how much longer each following rank waits than the one before.
	RankDelay = 5 * time.Second
	// AbandonAfter is how long a decided server may stay unheard of.
	AbandonAfter = 15 * time.Minute
)

// UID names a cluster and its servers: see NewValue.
type UID [16]byte

// String returns 32 hex digits.
func (u UID) String() string { return hex.EncodeToString(u[:]) }

// IsZero reports whether u names no cluster.
func (u UID) IsZero() bool { return u == UID{} }

// MarshalText implements encoding.TextMarshaler.
func (u UID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (u *UID) UnmarshalText(b []byte) error {
	p, err := ParseUID(string(b))
	if err != nil {
		return err
	}
	*u = p
	return nil
}

// ParseUID reads what String wrote.
func ParseUID(s string) (UID, error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(UID{}) {
		return UID{}, fmt.Errorf("parse cluster uid %q: want %d hex digits", s, 2*len(UID{}))
	}
	return UID(raw), nil
}

// Kind is which of an epoch's two registers is meant.
type Kind string

// The registers of an epoch.
const (
	GenesisRegister Kind = "genesis"
	OutcomeRegister Kind = "outcome"
)

// Register names one decision. Epochs count from 1.
type Register struct {
	Kind  Kind   `json:"kind"`
	Epoch uint64 `json:"epoch"`
}

// Ballot orders attempts at a register: by round, then by proposer. The zero
// Ballot is below every other.
type Ballot struct {
	Round    uint64      `json:"round"`
	Proposer identity.ID `json:"proposer"`
}

// IsZero reports whether b is no ballot.
func (b Ballot) IsZero() bool { return b == Ballot{} }

// Compare orders ballots.
func (b Ballot) Compare(o Ballot) int {
	if c := cmp.Compare(b.Round, o.Round); c != 0 {
		return c
	}
	return b.Proposer.Compare(o.Proposer)
}

// Outcome is what became of an epoch's cluster.
type Outcome string

// The outcomes.
const (
	Open      Outcome = ""
	Started   Outcome = "started"
	Abandoned Outcome = "abandoned"
)

// Value is what a register decides. In Genesis: Seed, Servers (the first of which
// creates the cluster) and the UID that follows from both. In Outcome: UID (the
// one that Genesis of the same epoch decided) and Outcome.
type Value struct {
	UID     UID           `json:"uid"`
	Seed    UID           `json:"seed,omitzero"` // drawn by the proposer
	Servers []identity.ID `json:"servers,omitempty"`
	Outcome Outcome       `json:"outcome,omitempty"`

	unknown keepjson.Unknown
}

// Vote is one node's signed accept of a value; what it signs is in the certificate.
type Vote struct {
	Voter     identity.ID `json:"voter"`
	Signature []byte      `json:"signature"`

	unknown keepjson.Unknown
}

// Certificate proves that a register is decided: Q votes for one value under one ballot.
type Certificate struct {
	Register Register `json:"register"`
	Ballot   Ballot   `json:"ballot"`
	Value    Value    `json:"value"`
	Votes    []Vote   `json:"votes"`

	unknown keepjson.Unknown
}

// Decision is all that is known of the latest epoch, with its proofs.
type Decision struct {
	Genesis Certificate  `json:"genesis"`
	Outcome *Certificate `json:"outcome,omitempty"` // of the same epoch; nil while open
	Prior   *Certificate `json:"prior,omitempty"`   // the abandonment of the epoch before; nil in epoch 1

	unknown keepjson.Unknown
}

// UID returns the cluster's UID.
func (d *Decision) UID() UID { return d.Genesis.Value.UID }

// Epoch returns the decision's epoch.
func (d *Decision) Epoch() uint64 { return d.Genesis.Register.Epoch }

// Servers returns who was named; the first creates the cluster. Not to be modified.
func (d *Decision) Servers() []identity.ID { return d.Genesis.Value.Servers }

// Result returns the outcome as far as it is proven.
func (d *Decision) Result() Outcome {
	if d.Outcome == nil {
		return Open
	}
	return d.Outcome.Value.Outcome
}

// Conflict is two clusters under one network_id. Own is the one that this node
// is in or would be in, which the other node may see the other way round.
type Conflict struct {
	Own, Rival UID
}

// Member is one node of the mesh as the view shows it, this node included.
type Member struct {
	ID         identity.ID
	Connected  bool // always true for this node itself
	Wanted     agentapi.Wanted
	ClusterUID string // cluster that it says it belongs to; "" for none
	Server     bool   // it publishes a running control plane of ClusterUID (a ServerRecord)
	// Outcome and Epoch as it publishes them help to notice who knows more; both may be empty.
	Epoch uint64
	// Abstains: it votes for nothing at present. It can be talked to, and is not counted on.
	Abstains bool
}
