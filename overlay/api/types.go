package api

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/rights"
)

// Kinds of members.
const (
	KindNode   = "node"   // a machine that may become part of a cluster
	KindBridge = "bridge" // a person's laptop
)

// Status is this member's own state: GET /api/v1/status.
type Status struct {
	ID         identity.ID    `json:"id"`
	Name       string         `json:"name"`
	Kind       string         `json:"kind"`
	NetworkID  string         `json:"network_id"`
	Version    string         `json:"version"`
	Interface  string         `json:"interface"`
	MTU        int            `json:"mtu"`
	Addresses  []netip.Addr   `json:"addresses"` // overlay IPv4, then IPv6
	Networks   []netip.Prefix `json:"networks"`  // overlay IPv4, then IPv6
	Pinned     bool           `json:"pinned"`    // the IPv4 address will not change any more
	Underlay   []string       `json:"underlay"`
	Declared   int            `json:"declared_nodes"` // n of the token
	Quorum     int            `json:"quorum"`         // n/2+1
	Waiting    string         `json:"waiting,omitempty"`
	Conditions []Condition    `json:"conditions"`
	Uptime     Duration       `json:"uptime_seconds"`
}

// Condition is one named thing a person should know about.
type Condition struct {
	Code     string `json:"code"`
	Severity string `json:"severity"` // info | warning | error
	Text     string `json:"text"`
	Hint     string `json:"hint,omitempty"`
}

// Node is one member of the mesh as this member knows it.
type Node struct {
	ID          identity.ID       `json:"id"`
	Name        string            `json:"name"`
	Kind        string            `json:"kind"`
	NetworkID   string            `json:"network_id"`
	Version     string            `json:"version"`
	Addresses   []netip.Addr      `json:"addresses"`
	Prefixes    []netip.Prefix    `json:"prefixes,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Self        bool              `json:"self,omitempty"`
	Connected   bool              `json:"connected"`
	Path        string            `json:"path,omitempty"`     // direct: sealed datagrams; quic, tcp: a stream of such a connection
	Endpoint    string            `json:"endpoint,omitempty"` // underlay address in use
	Why         string            `json:"why,omitempty"`      // it takes this path, in a few words
	RTT         Duration          `json:"rtt_seconds,omitempty"`
	Loss        int               `json:"loss_percent,omitempty"`      // of a direct path: of the last 32 probes, those without an answer
	MTU         int               `json:"mtu,omitempty"`               // largest packet that the path takes, in bytes
	Paths       []Path            `json:"paths,omitempty"`             // all of them, the chosen one first
	LastSeen    Duration          `json:"last_seen_seconds,omitempty"` // how long ago a record or the connection was fresh
}

// Rights returns what the member may do.
func (n Node) Rights() rights.Rights {
	return rights.OfWords(rights.Words{ID: n.ID, Name: n.Name, Kind: n.Kind, NetworkID: n.NetworkID, Notes: n.Annotations})
}

// NodeList is GET /api/v1/nodes. Revision grows with every change, so that a
// caller can wait for the next one with ?after=REVISION&wait=30s.
type NodeList struct {
	Revision uint64 `json:"revision"`
	Nodes    []Node `json:"nodes"`
}

// Peer is one connected peer with its counters: GET /api/v1/peers.
type Peer struct {
	ID        identity.ID       `json:"id"`
	Name      string            `json:"name,omitempty"`
	Path      string            `json:"path"` // as Node's, like the next ones
	Why       string            `json:"why"`
	Endpoint  string            `json:"endpoint"`
	RTT       Duration          `json:"rtt_seconds"`                // of a direct path: smoothed
	LastRTT   Duration          `json:"last_rtt_seconds,omitempty"` // of a direct path: of the last probe
	Loss      int               `json:"loss_percent"`
	MTU       int               `json:"mtu"`
	Paths     []Path            `json:"paths,omitempty"` // all of them, the chosen one first
	Connected Duration          `json:"connected_seconds"`
	TxPackets uint64            `json:"tx_packets"`
	TxBytes   uint64            `json:"tx_bytes"`
	RxPackets uint64            `json:"rx_packets"`
	RxBytes   uint64            `json:"rx_bytes"`
	Drops     map[string]uint64 `json:"drops,omitempty"` // by reason
}

// Path is one way that packets may take to a peer.
type Path struct {
	Kind   string      `json:"kind"`             // as Node's Path
	Socket uint16      `json:"socket,omitempty"` // the number of this machine's UDP socket
	Local  netip.Addr  `json:"local,omitzero"`   // packets leave from it; absent: the kernel chooses
	Remote string      `json:"remote"`           // underlay address
	Via    identity.ID `json:"via,omitzero"`     // the member that relays; absent: none does
	State  string      `json:"state"`            // candidate, dead, narrow, suspect, alive
	Why    string      `json:"why,omitempty"`    // it is chosen, or is not, in a few words
	RTT    Duration    `json:"rtt_seconds,omitempty"`
	Loss   int         `json:"loss_percent,omitempty"`
	MTU    int         `json:"mtu,omitempty"`
	Heard  *Duration   `json:"heard_seconds,omitempty"` // how long ago the last datagram came; absent: none did
	Chosen bool        `json:"chosen,omitempty"`
}

// Routes is what a node's agent asks the overlay to carry: PUT /control/v1/routes.
type Routes struct {
	Announce []netip.Prefix `json:"announce,omitempty"` // prefixes behind this node
	Accept   Accept         `json:"accept"`             // prefixes taken from others
	Local    []netip.Prefix `json:"local,omitempty"`    // kernel routes to the interface without a peer behind, for source selection
}

// Accept bounds whose prefixes are believed.
type Accept struct {
	NetworkID string       `json:"network_id,omitempty"`
	Range     netip.Prefix `json:"range,omitzero"`
}

// Cluster is the cluster as this member knows it: GET /api/v1/cluster.
type Cluster struct {
	NetworkID string        `json:"network_id"`
	UID       string        `json:"uid,omitempty"`
	Epoch     uint64        `json:"epoch,omitempty"`
	Phase     string        `json:"phase"`
	Role      string        `json:"role,omitempty"` // of this node
	Servers   []identity.ID `json:"servers,omitempty"`
	Endpoint  string        `json:"endpoint,omitempty"` // https://<overlay address>:6443
	Waiting   string        `json:"waiting,omitempty"`
	Conflict  string        `json:"conflict,omitempty"`
}

// Record is one member's signed record, opened: GET /api/v1/records.
type Record struct {
	ID          identity.ID       `json:"id"`
	Seq         uint64            `json:"seq"`
	Name        string            `json:"name"`
	Kind        string            `json:"kind"`
	NetworkID   string            `json:"network_id"`
	Version     string            `json:"version"`
	Addresses   []netip.Addr      `json:"addresses"`
	Pinned      bool              `json:"pinned"`
	Underlay    []string          `json:"underlay,omitempty"`
	Prefixes    []netip.Prefix    `json:"prefixes,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Left        bool              `json:"left,omitempty"`
}

// The annotations that a node's agent puts into its record, for whoever shows
// them. What they entitle to is for package rights alone.
const (
	NoteRoleWanted = rights.NoteRoleWanted
	NoteRole       = rights.NoteRole
	NotePhase      = rights.NotePhase
	NoteClusterUID = rights.NoteClusterUID
	NoteEpoch      = rights.NoteEpoch
	NoteServer     = rights.NoteServer
	NoteCA         = rights.NoteCA
	NoteVotes      = rights.NoteVotes
	NoteWaiting    = rights.NoteWaiting
	NoteReady      = rights.NoteReady
	NoteKubernetes = rights.NoteKubernetes
	NoteImages     = rights.NoteImages
)

// SignRequest is the body of POST /control/v1/sign. Context must start with
// ContextPrefix, so that the agent can never sign what the overlay itself signs.
type SignRequest struct {
	Context string `json:"context"`
	Message []byte `json:"message"`
}

// ContextPrefix begins every context that POST /control/v1/sign accepts.
const ContextPrefix = "agent-"

// SignAnswer is what POST /control/v1/sign answers.
type SignAnswer struct {
	Signature []byte `json:"signature"`
}

// CertificateRequest is the body of POST /control/v1/certificate: a public key as PKIX DER.
type CertificateRequest struct {
	PublicKey []byte `json:"public_key"`
}

// CertificateAnswer holds a chain in DER: the leaf for the requested key, then
// the self-signed certificate of the identity key, whose public key is the member's ID.
type CertificateAnswer struct {
	Chain [][]byte `json:"chain"`
}

// Error is the body of every answer that is not 2xx.
type Error struct {
	Message string `json:"error"`
	Hint    string `json:"hint,omitempty"`
	Status  int    `json:"-"` // HTTP status; a server that gets 0 answers 500
}

// Error implements error.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + "; " + e.Hint
}

// Duration is a time.Duration written as seconds in JSON.
type Duration time.Duration

// MarshalJSON implements json.Marshaler.
func (d Duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(d).Seconds())
}

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s float64
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*d = Duration(s * float64(time.Second))
	return nil
}
