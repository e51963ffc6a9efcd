// Package departure takes a machine out of its cluster because a person asked for
// it: the node is emptied, k3s stops, the node object is deleted, the role forgotten.
//
// It is an operation: it has an ID, is written down, goes on in the next agent of the
// same boot, and follows the last word of whoever asked. What only an administrator may
// do for it a server's agent does, with Help, as long as the caller asks for its own node.
package departure

import (
	"context"
	"log/slog"
	"time"

	"github.com/kairos-io/kairos/agent/kube"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// DefaultDrain is how long pods have to end before they are forced or leaving fails.
const DefaultDrain = 5 * time.Minute

// DefaultFile is there from when this node began to leave until the next boot: it is
// on a tmpfs, and keeps a restarted agent from joining again.
const DefaultFile = "/run/kairos/left"

// Times is the pace of leaving; tests have less patience.
type Times struct {
	Pace    time.Duration // between two rounds
	Forced  time.Duration // for pods to end that were forced to
	Missing time.Duration // for a server that does not answer to come back
	Retire  time.Duration // for the loop to stop k3s and withdraw
	Remove  time.Duration // for the node object to be deleted
}

var patientTimes = Times{Pace: 2 * time.Second, Forced: time.Minute, Missing: 30 * time.Second, Retire: 2 * time.Minute, Remove: time.Minute}

// Request is what a person wants.
type Request struct {
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

func (r Request) drainLimit() time.Duration {
	if r.DrainSeconds <= 0 {
		return DefaultDrain
	}
	return time.Duration(r.DrainSeconds) * time.Second
}

// Status is how far leaving is.
type Status struct {
	// ID is the operation's. It is another one once a request came after the end
	// of the one before; Request is the last word of whoever asked.
	ID      string  `json:"id,omitempty"`
	Request Request `json:"request,omitzero"`

	Asked bool       `json:"asked"`                 // somebody asked for it since this machine booted
	Step  string     `json:"step"`                  // one line: what is being done
	Done  bool       `json:"done"`                  // this node belongs to no cluster any more
	Left  []string   `json:"left_behind,omitempty"` // what could not be cleaned up elsewhere
	Error *api.Error `json:"error,omitempty"`       // it failed; ask again to go on
}

// Membership is the cluster that this machine belongs to.
type Membership struct {
	UID     string // "": none
	Server  bool   // this machine is one of its servers
	Servers []identity.ID
	Alone   bool // no other server of it is connected
}

// Node is the machine that leaves.
type Node interface {
	Membership() (Membership, error)
	// AskServer has a server of the cluster do one step for this node.
	AskServer(ctx context.Context, m Membership, step string) (kube.Progress, error)
	// Forget leaves the node without a cluster of its own; what it voted stays.
	Forget() error
	Name() string    // of the node object
	Waiting() string // what the loop waits for
}

// Options of New. Node and NetworkID are required.
type Options struct {
	Node      Node
	NetworkID string // what a person names to end a cluster
	File      string // "": DefaultFile; the operation lies beside it
	Times     Times  // zero: those of people
	Log       *slog.Logger
}
