package store

import (
	"encoding/json"
	"net/netip"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/keepjson"
)

// Phase is how far a node has come in taking part in a cluster. It is saved
// before the side effect that it names, and never goes backward within an epoch:
//
//	Idle ──> Promised ──> Decided ──> Starting ──> Running
//	 │                       ^
//	 └───────────────────────┘  (learned, without having voted)
//
// Starting is saved before k3s is started for the first time, Running once it
// answered. A higher epoch takes a node from Promised or Decided to Promised or
// Decided of that epoch.
type Phase string

// The phases, in their order.
const (
	Idle     Phase = ""         // has not taken part in anything
	Promised Phase = "promised" // has voted; nothing is decided as far as this node knows
	Decided  Phase = "decided"  // knows which cluster there is
	Starting Phase = "starting" // k3s may have been started
	Running  Phase = "running"  // k3s has answered
)

var phaseOrder = map[Phase]int{Idle: 0, Promised: 1, Decided: 2, Starting: 3, Running: 4}

// Valid reports whether p is one of the phases above.
func (p Phase) Valid() bool { _, ok := phaseOrder[p]; return ok }

// AtLeast reports whether p is q or comes after it.
func (p Phase) AtLeast(q Phase) bool { return phaseOrder[p] >= phaseOrder[q] }

// Role is what a node does in its cluster.
type Role string

// The roles.
const (
	NoRole Role = ""
	Server Role = "server" // runs the control plane
	Worker Role = "worker"
)

// State is everything that a node remembers about its cluster. It holds no
// secret. The zero State is that of a node that never took part in anything.
type State struct {
	NetworkID  string        `json:"network_id,omitempty"`  // network_id under which the rest was written
	Phase      Phase         `json:"phase,omitempty"`       // written before the side effect
	Role       Role          `json:"role,omitempty"`        // set when Phase >= Decided
	ClusterUID string        `json:"cluster_uid,omitempty"` // 32 hex digits, set when Phase >= Decided
	Epoch      uint64        `json:"epoch,omitempty"`       // epoch of ClusterUID
	Servers    []identity.ID `json:"servers,omitempty"`     // servers named by the decision
	PodCIDR    netip.Prefix  `json:"pod_cidr,omitzero"`     // pod range of this node, once Kubernetes gave it one
	// Genesis is what package genesis must remember; only that package reads or writes it.
	Genesis json.RawMessage `json:"genesis,omitempty"`

	unknown keepjson.Unknown // what a later version wrote
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *State) UnmarshalJSON(raw []byte) (err error) {
	type plain State
	s.unknown, err = keepjson.Unmarshal(raw, (*plain)(s))
	return err
}

// MarshalJSON implements json.Marshaler.
func (s State) MarshalJSON() ([]byte, error) {
	type plain State
	return keepjson.Marshal(plain(s), s.unknown)
}

// Clone returns a copy that shares no memory with s.
func (s State) Clone() State {
	s.Servers = append([]identity.ID(nil), s.Servers...)
	s.Genesis = append(json.RawMessage(nil), s.Genesis...)
	return s
}
