package genesis

import (
	"encoding/json"
	"slices"

	"github.com/kairos-io/kairos/overlay/keepjson"
)

// State is what a node must never forget. The zero State is that of a node
// that never voted. It is a value: nothing in it is changed in place, the
// functions of this package return a new one.
type State struct {
	// Network is which network and network_id the votes are for; "" in the zero State.
	Network string `json:"network,omitempty"`
	// Epoch is the epoch in which the node votes; 0 means 1. It never goes down,
	// and the node votes in no lower epoch.
	Epoch uint64 `json:"epoch,omitempty"`
	// Abstain is the highest epoch in which the node must not vote, because it
	// may have voted there and forgot: see Core.Abstain.
	Abstain uint64 `json:"abstain,omitempty"`
	// Votes is the acceptor's memory of the registers of Epoch.
	Votes []Acceptance `json:"votes,omitempty"`
	// Prior proves that Epoch-1 was abandoned; nil while Epoch is 1.
	Prior *Certificate `json:"prior,omitempty"`
	// Decision is the cluster that there is, as far as this node knows.
	Decision *Decision `json:"decision,omitempty"`
	// Rival is a second valid cluster: see Conflict.
	Rival *Decision `json:"rival,omitempty"`
	// Own is the cluster that this node runs in, or that a person named; zero for
	// none. No other becomes Decision, and the node helps to found no other.
	Own UID `json:"own,omitzero"`

	unknown keepjson.Unknown
}

// Acceptance is what one node promised and accepted in one register.
type Acceptance struct {
	Register Register `json:"register"`
	Promised Ballot   `json:"promised"`
	Accepted Ballot   `json:"accepted,omitzero"` // zero: nothing accepted
	Value    *Value   `json:"value,omitempty"`   // what was accepted

	unknown keepjson.Unknown
}

// epoch returns the epoch in which the node votes, from 1.
func (s State) epoch() uint64 { return max(1, s.Epoch) }

// abstains reports whether the node must not vote in its epoch.
func (s State) abstains() bool { return s.epoch() <= s.Abstain }

// acceptance returns what is remembered of a register.
func (s State) acceptance(r Register) Acceptance {
	for _, a := range s.Votes {
		if a.Register == r {
			return a
		}
	}
	return Acceptance{Register: r}
}

// withAcceptance returns s with a in place of what was remembered of its register.
func (s State) withAcceptance(a Acceptance) State {
	votes := slices.DeleteFunc(slices.Clone(s.Votes), func(o Acceptance) bool { return o.Register == a.Register })
	s.Votes = append(votes, a)
	return s
}

// atEpoch returns s moved up to epoch e; votes of lower epochs are dropped,
// which is safe because the node never votes there again.
func (s State) atEpoch(e uint64, prior *Certificate) State {
	s.Epoch, s.Prior = e, prior
	s.Votes = slices.DeleteFunc(slices.Clone(s.Votes), func(a Acceptance) bool { return a.Register.Epoch < e })
	return s
}

// pin returns the only cluster that may be Decision from now on, zero while any
// may: the node's own, or one that is proven to have started.
func (s State) pin() UID {
	if s.Own.IsZero() && s.Decision != nil && s.Decision.Result() == Started {
		return s.Decision.UID()
	}
	return s.Own
}

// Conflict returns the two clusters that this node knows of, nil normally.
func (s State) Conflict() *Conflict {
	switch {
	case s.Rival == nil:
		return nil
	case s.Decision == nil:
		return &Conflict{Own: s.Own, Rival: s.Rival.UID()}
	}
	return &Conflict{Own: s.Decision.UID(), Rival: s.Rival.UID()}
}

// Encode returns the form that is kept in the store.
func (s State) Encode() (json.RawMessage, error) { return json.Marshal(s) }
