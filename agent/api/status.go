package api

import (
	"time"

	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/rights"
)

// Status is what the agent tells on its own socket: GET /api/v1/agent.
type Status struct {
	Cluster    api.Cluster        `json:"cluster"`
	K3sRunning bool               `json:"k3s_running"` // its process lives
	Ready      bool               `json:"ready"`       // k3s works and Kubernetes says the node is ready
	Conditions []health.Condition `json:"conditions"`
}

// Disabled reports whether cluster.enabled is false.
func (s Status) Disabled() bool { return s.Cluster.Phase == rights.PhaseDisabled }

// DefaultNetworkID is the name of a cluster where nobody chose one.
const DefaultNetworkID = "kairos"

// DefaultDrain is how long pods have to end before they are forced or leaving fails.
const DefaultDrain = 5 * time.Minute

// LeaveRequest is the body of POST /control/v1/leave.
type LeaveRequest struct {
	// Force goes on where pods do not end in time or the cluster does not answer.
	Force bool `json:"force,omitempty"`
	// KeepIdentity forgets the role and keeps the votes, for a machine that will
	// come back under the same key.
	KeepIdentity bool `json:"keep_identity,omitempty"`
	// EndCluster is the network_id, from a person who knows that this machine is
	// the cluster's only server.
	EndCluster string `json:"end_cluster,omitempty"`
	// DrainSeconds is how long pods have to end; 0: DefaultDrain.
	DrainSeconds int `json:"drain_seconds,omitempty"`
}

// DrainLimit is how long pods have to end.
func (r LeaveRequest) DrainLimit() time.Duration {
	if r.DrainSeconds <= 0 {
		return DefaultDrain
	}
	return time.Duration(r.DrainSeconds) * time.Second
}

// LeaveStatus is how far leaving is: the answer to POST and GET /control/v1/leave.
type LeaveStatus struct {
	// ID is the operation's. It is another one once a request came after the end
	// of the one before; Request is the last word of whoever asked.
	ID      string       `json:"id,omitempty"`
	Request LeaveRequest `json:"request,omitzero"`

	Asked bool       `json:"asked"`                 // somebody asked for it since this machine booted
	Step  string     `json:"step"`                  // one line: what is being done
	Done  bool       `json:"done"`                  // this node belongs to no cluster any more
	Left  []string   `json:"left_behind,omitempty"` // what could not be cleaned up elsewhere
	Error *api.Error `json:"error,omitempty"`       // it failed; ask again to go on
}

// Proven is what the proof of a cluster says: the agreement's certificate.
type Proven struct {
	UID     string        // of the cluster
	Servers []identity.ID // whom the agreement named
}
