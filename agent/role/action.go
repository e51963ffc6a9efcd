package role

import (
	"net/netip"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/identity"
)

// Action is one step of a plan. Every one is idempotent.
type Action interface{ isAction() }

// The steps. Wait, Ask and Note tell; the others do.
type (
	// Wait: nothing more can be done now, for a normal reason.
	Wait struct {
		Code   string // a health code; "" is Waiting
		Reason string // one line: what is being waited for
		Hint   string // what a person may do, may be empty
	}
	// Ask: going on could destroy or fork a cluster. Nothing is done until a person acts.
	Ask struct {
		Code   string // a health code; "" is NeedsOperator
		Reason string
		Hint   string
	}
	// Note: go on, and tell a person.
	Note struct {
		Code   string
		Reason string
		Hint   string
		Grave  bool // going on does not help: an error, not a warning
	}
	// Save makes the state durable. It is complete apart from Genesis, which the
	// caller must keep as it is: store.Store.SaveRole does.
	Save struct{ State store.State }
	// RunGenesis: take part in the agreement (vote, propose, learn), as long as it
	// is planned. While it is not, no message may be answered either: a node that
	// is not sure of its memory must not vote.
	RunGenesis struct{}
	// Abstain gives up the votes of epochs up to Epoch (agentapi.EveryEpoch: of all), durably, before RunGenesis.
	Abstain struct{ Epoch uint64 }
	// Pin fixes the overlay addresses for good.
	Pin struct{}
	// FetchImage begins to get the k3s image, which every role needs, while the
	// machines still agree. Nothing waits for it.
	FetchImage struct{}
	// PrepareImage gets the k3s image into containerd. It comes before
	// ProposeStarted, because nothing slow may stand between that and the start.
	PrepareImage struct{}
	// ProposeStarted wins Outcome(Epoch)=started. When it is lost, the facts of the
	// next turn say abandoned.
	ProposeStarted struct {
		UID   string
		Epoch uint64
	}
	// WriteMarker puts the marker into k3s' data directory, durably.
	WriteMarker struct {
		UID     string
		Epoch   uint64
		Role    store.Role
		Servers []identity.ID
	}
	// StartServer runs k3s server, or adopts or restarts the container of this cluster.
	// Only with First may the datastore be empty.
	StartServer struct {
		UID   string
		First bool
	}
	// KeepDatastore copies the server's data, which is Of's, before another k3s gets it. k3s is stopped.
	KeepDatastore struct{ Of agentapi.K3s }
	// RestoreDatastore puts that copy back, or goes on with it. k3s is stopped.
	RestoreDatastore struct{}
	// DropKept deletes the copy.
	DropKept struct{}
	// Found makes the issuer's key of cluster UID and the founder record, on its server.
	Found struct{ UID string }
	// FetchJoin gets the agent token and CA hash of cluster UID from a server's agent.
	FetchJoin struct {
		From identity.ID
		UID  string
	}
	// StartWorker runs k3s agent, or adopts or restarts the container of this cluster.
	StartWorker struct{ UID string }
	// ApplyNetwork configures the pod network for this node's range and announces it.
	ApplyNetwork struct{ PodCIDR netip.Prefix }
	// WithdrawNetwork announces and accepts no pod ranges any more.
	WithdrawNetwork struct{}
	// Publish sets this node's annotations (all of them).
	Publish struct{ Annotations map[string]string }
	// Restart stops a k3s that does not answer, or whose node is Missing in Kubernetes,
	// so that the next turn starts it. Pods and their network stay as they are.
	Restart struct {
		Reason  string
		Missing bool
	}
	// Stop stops k3s and keeps its data.
	Stop struct{ Reason string }
)

func (Wait) isAction()             {}
func (Ask) isAction()              {}
func (Note) isAction()             {}
func (Save) isAction()             {}
func (RunGenesis) isAction()       {}
func (Abstain) isAction()          {}
func (Pin) isAction()              {}
func (FetchImage) isAction()       {}
func (PrepareImage) isAction()     {}
func (ProposeStarted) isAction()   {}
func (WriteMarker) isAction()      {}
func (StartServer) isAction()      {}
func (KeepDatastore) isAction()    {}
func (RestoreDatastore) isAction() {}
func (DropKept) isAction()         {}
func (Found) isAction()            {}
func (FetchJoin) isAction()        {}
func (StartWorker) isAction()      {}
func (ApplyNetwork) isAction()     {}
func (WithdrawNetwork) isAction()  {}
func (Publish) isAction()          {}
func (Restart) isAction()          {}
func (Stop) isAction()             {}
