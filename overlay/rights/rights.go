// Package rights turns what a member says about itself into what it may do. It
// is the only place where a member's own words (its kind, its network_id, its
// notes) count for anything: whoever forwards packets, answers an agent, lets a
// machine join or signs a certificate asks here, so that there is one place to
// change when words are no longer enough.
//
// At present every member holds the same token, and its words are all there is.
// What a third party has signed about a member will replace them in [Of], and
// nothing that asks will have to know.
package rights

import (
	"strconv"
	"strings"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Right is one thing that a member may do. The zero Right is nobody's.
type Right uint8

// The rights. All but Peer are meant in one cluster, named by its network_id.
const (
	Peer   Right = iota + 1 // ask an agent what every member may know
	Route                   // announce ranges of the cluster's pods
	Vote                    // take part in the agreement on the cluster
	Join                    // get what a worker joins with
	Seed                    // give images to others and get theirs
	Leave                   // have its own machine taken out of Kubernetes
	Serve                   // be taken for one of the cluster's servers, if the agreement named it
	Grant                   // get a certificate of an administrator
	Return                  // be looked for where it was, after a restart
)

// String says what the right is about, to go after "may not".
func (r Right) String() string {
	switch r {
	case Peer:
		return "ask this machine"
	case Route:
		return "announce ranges"
	case Vote:
		return "take part in the agreement"
	case Join:
		return "join"
	case Seed:
		return "share images"
	case Leave:
		return "be taken out of Kubernetes"
	case Serve:
		return "be a server"
	case Grant:
		return "get an administrator's certificate"
	case Return:
		return "be looked for"
	}
	return "do that"
}

// Words is what one member says of itself, wherever that was read.
type Words struct {
	ID        identity.ID // authenticated: the one thing here that is no word
	Name      string
	Kind      string // wire.KindNode or wire.KindBridge
	NetworkID string
	Notes     map[string]string // the record's annotations
}

// Rights is what one member may do. The zero Rights is that of a stranger. The
// notes that it was made from must not change any more; no record's do.
type Rights struct {
	id      identity.ID
	name    string
	node    bool   // a machine of cluster
	bridge  bool   // a person
	cluster string // network_id
	notes   map[string]string
}

// Of returns the rights of the author of r. Who said goodbye has none.
func Of(r wire.Record) Rights {
	if r.Left {
		return Rights{}
	}
	return OfWords(Words{ID: r.ID, Name: r.Name, Kind: r.Kind, NetworkID: r.NetworkID, Notes: r.Annotations})
}

// OfWords is Of for who does not hold the record itself: an agent, which sees
// members through the overlay's socket.
func OfWords(w Words) Rights {
	r := Rights{id: w.ID, name: w.Name, cluster: w.NetworkID}
	switch {
	case w.ID.IsZero():
		return Rights{}
	case w.Kind == wire.KindNode:
		r.node, r.notes = true, w.Notes
	case w.Kind == wire.KindBridge:
		r.bridge = true
	}
	return r
}

// May reports whether the member has the right in the cluster of this network_id.
func (r Rights) May(right Right, cluster string) bool {
	member, machine := r.node || r.bridge, r.machineOf(cluster)
	switch right {
	case Peer:
		return member
	case Vote:
		return machine && !r.away()
	case Route, Join, Seed, Leave, Serve:
		return machine
	case Grant:
		// A person may look at any of the clusters that share the network.
		return r.bridge
	case Return:
		// A bridge comes from elsewhere the next time.
		return r.node
	}
	return false
}

func (r Rights) machineOf(cluster string) bool {
	return r.node && cluster != "" && r.cluster == cluster
}

// away reports whether the machine says that it takes no part in its cluster. Who
// agrees on one must not count on it: it is as if it were not there.
func (r Rights) away() bool {
	return r.notes[NotePhase] == PhaseDisabled || r.notes[NotePhase] == PhaseLeaving
}

// Machine returns the network_id of the cluster that the member is a machine
// of; ok is false for a person and for a stranger.
func (r Rights) Machine() (cluster string, ok bool) {
	if !r.node {
		return "", false
	}
	return r.cluster, true
}

// Name is what the member may be called on other machines: its own choice if it
// ends in the ID, "" otherwise. Nobody takes the name of another member, or of a
// host outside the mesh, since names also go into hosts files.
func (r Rights) Name() string {
	if !strings.HasSuffix(r.name, "-"+r.id.Short()) {
		return ""
	}
	return r.name
}

// Claim is what a machine says of itself in its cluster. It proves nothing:
// who acts on it compares it with what the agreement decided.
type Claim struct {
	Wanted     string // the configured role: "", master or worker
	Role       string // the one that it has: "", server or worker
	UID        string // of the cluster that it is in; "" for none
	Epoch      uint64
	Server     string // address:port of the Kubernetes API that runs there; "" for none
	CA         string // hex SHA-256 of that API's authority
	Kubernetes string // version of the kubelet there; "" while none runs
	Waiting    string // one line: what it waits for
	Images     string // tag of what it can give to others; "" for nothing
	// Abstains: it votes for nothing at present, because it is not sure of its memory.
	Abstains bool
}

// Claim returns what the member says as a machine of the cluster of this
// network_id; ok is false if it is none.
func (r Rights) Claim(cluster string) (c Claim, ok bool) {
	if !r.machineOf(cluster) {
		return Claim{}, false
	}
	c = Claim{
		Wanted: r.notes[NoteRoleWanted], Role: r.notes[NoteRole], UID: r.notes[NoteClusterUID],
		Server: r.notes[NoteServer], CA: r.notes[NoteCA], Waiting: r.notes[NoteWaiting], Images: r.notes[NoteImages],
		Kubernetes: r.notes[NoteKubernetes],
		Abstains:   r.notes[NoteVotes] == VotesNo,
	}
	if e, err := strconv.ParseUint(r.notes[NoteEpoch], 10, 64); err == nil {
		c.Epoch = e // words that make no sense say nothing
	}
	return c, true
}

// Serves reports whether the claim is that of a running server.
func (c Claim) Serves() bool { return c.UID != "" && c.Server != "" }
