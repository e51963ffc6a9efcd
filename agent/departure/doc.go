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
	"github.com/kairos-io/kairos/overlay/identity"
)

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
