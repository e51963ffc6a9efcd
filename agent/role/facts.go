package role

import (
	"net/netip"
	"slices"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/identity"
)

// Presence answers a question about a disk or a daemon that may not answer. Its
// zero value is Unknown, so that a forgotten fact is never taken for "no".
type Presence uint8

// The answers.
const (
	Unknown Presence = iota // could not be found out; never treated as Absent
	Absent
	Present
)

// PresenceOf turns a look-up into a Presence: an error is Unknown.
func PresenceOf(there bool, err error) Presence {
	switch {
	case err != nil:
		return Unknown
	case there:
		return Present
	default:
		return Absent
	}
}

// StoreStatus is what reading the state file gave.
type StoreStatus uint8

// The outcomes. The zero value is the careful one.
const (
	StoreUnusable StoreStatus = iota // damaged, unreadable or from a newer version: see Facts.StateProblem
	StoreEmpty                       // there is no state file
	StoreLoaded                      // State is valid
)

// Decision is what the genesis agreement gave: the cluster that there is. One
// that was abandoned is none.
type Decision struct {
	UID     string
	Epoch   uint64
	Servers []identity.ID // the first creates the cluster
	Started bool          // it is proven that the first server won the right to start
}

// Names reports whether id is one of the decision's servers.
func (d Decision) Names(id identity.ID) bool {
	return slices.Contains(d.Servers, id)
}

// Genesis is how far the agreement has come.
type Genesis struct {
	Epoch    uint64    // epoch in which this node votes, from 1
	Decision *Decision // nil: nothing is decided as far as this node knows
	Waiting  string    // one line why not, for people
	Abstains bool      // it must not vote in Epoch: it may have done so and forgot
	Problem  string    // why this node's votes cannot be used; "" when they can
	Foreign  bool      // because they were given under another network_token or network_id
}

// Conflict is two valid certificates for one network_id.
type Conflict struct {
	Own, Rival string      // cluster UIDs: of the decision here, and the other
	Server     identity.ID // whom the rival's certificate names
}

// Marker is the file that the agent writes into k3s' data directory before the
// first start, so that the data can say whose it is when the state is lost.
type Marker struct {
	Presence Presence
	UID      string
	Epoch    uint64
	Role     store.Role
	Servers  []identity.ID
}

// K3s is the container.
type K3s struct {
	Container Presence   // Present also when it has exited
	Running   bool       // its process lives
	Ready     bool       // it answers /readyz (server) or its kubelet is healthy (worker)
	Role      store.Role // as its labels say
	UID       string     // as its labels say
	Silence   Silence    // since when it does not; see Watch
	Node      Presence   // this machine's Node object, while k3s is Ready
	Missing   Missing    // since when there is none; see Watch
	Version   string     // of Kubernetes, as a server's image is called or the Node object says; "" while it does not run
	Stale     bool       // runs with other flags or another image than the present configuration asks for
}

// Versions is which k3s this machine has, and has had.
type Versions struct {
	Wanted    agentapi.K3s  // of the configuration or the OS; zero: it could not be found out
	Ran       agentapi.K3s  // ran last, and had a server's data; zero: not known
	Kept      *agentapi.K3s // has left a copy of the server's data; nil: none
	Restoring bool          // that copy is being put back
	Trial     bool          // the OS that runs is on trial: another one may be back soon
}

// Server is a control plane as a member publishes it (or as this node itself does).
type Server struct {
	ID        identity.ID
	Name      string
	UID       string
	Endpoint  string // <overlay address>:6443
	CAHash    string // hex SHA-256
	Connected bool

	Kubernetes string // version that it runs; "" while nothing says
}

// Facts is everything the policy looks at. Everything in it was observed in this turn.
type Facts struct {
	Self           identity.ID
	NetworkID      string
	Wanted         agentapi.Wanted
	ClusterEnabled bool   // cluster.enabled
	ClusterUID     string // cluster.uid: the cluster that a person chose; "" for none
	Leaving        bool   // a person asked in this boot that this machine leaves its cluster

	Store        StoreStatus
	StateProblem string // why StoreUnusable
	StateNewer   bool   // because a later version of this program must be the one to use it
	State        store.State

	Images    string // tag of what this node can give to others; empty: nothing
	OverlayUp bool   // the overlay answers and this node has an address
	Pinned    bool   // the overlay address will not change any more

	Genesis  Genesis
	Conflict *Conflict

	Marker    Marker
	Founder   Presence // the founder record of the cluster, on its server
	Datastore Presence // server data (etcd or SQLite) in k3s' data directory
	K3s       K3s
	Image     Presence // the k3s image is in containerd
	Versions  Versions

	// Servers is every member that publishes a cluster UID and an endpoint, in any
	// order. On a server it holds the node itself too, as soon as its k3s has a CA.
	Servers []Server
	// JoinUID is the cluster for which join information (agent token, CA hash) is at hand; "" for none.
	JoinUID    string
	JoinCAHash string // the CA hash in it
	// JoinEndpoint is the server that it names: <overlay address>:6443.
	JoinEndpoint string

	PodCIDR        netip.Prefix // what Kubernetes gave this node
	AppliedPodCIDR netip.Prefix // what CNI and overlay have

	// Published is the annotations that the overlay carries for this node now.
	Published map[string]string
}
