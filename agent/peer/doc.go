// Package peer carries requests between agents: HTTPS on overlay addresses with
// mutual TLS from the nodes' identity keys.
//
//	caller ──TLS 1.3, both present [leaf, identity]── server <overlay IPv4>:6450
//	   1. the identity certificate is self-signed: its key is the caller's ID
//	   2. the leaf is signed by it: who holds the leaf's key acts for that ID
//	   3. the ID is an admitted member of the mesh
//	   4. the member owns the address that the connection comes from
//	   5. it has the right that the table of endpoints demands
//
// An address alone proves nothing here: pods with host network, masqueraded
// pods and every local process can speak from it. The identity key itself never
// leaves the overlay daemon, which signs a leaf for a key that each agent makes
// at start.
package peer

import (
	"context"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
)

// Port is where agents listen on their overlay address.
const Port = 6450

// Limits of a request and of the server.
const (
	maxBody      = 256 << 10 // bytes of a request or an answer
	maxConns     = 256
	maxConnsEach = 16 // of these from one address
	// Requests from one address; an honest agent sends a few per second while it votes.
	requestsPerSecond = 20
	requestsBurst     = 100
	maxBudgets        = 4096 // addresses whose requests are counted
	dialTimeout       = 5 * time.Second
	callTimeout       = 20 * time.Second // where the caller's context has no earlier deadline
)

// Overlay is what is needed of the overlay daemon; *api.Client implements it.
type Overlay interface {
	Nodes(ctx context.Context, after uint64, wait time.Duration) (api.NodeList, error)
	Certificate(ctx context.Context, publicKey []byte) ([][]byte, error)
}
