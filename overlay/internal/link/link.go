// Package link is the words in which mesh and gossip speak of peers, so that
// neither has to know the other.
package link

import (
	"io"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Stream is one bidirectional flow to or from a peer. One goroutine may read
// while another writes.
type Stream interface {
	io.ReadWriteCloser
	Deadlines
	// CloseWrite ends this side; the other may go on.
	CloseWrite() error
	// Reset ends both directions at once; the other side sees an error.
	Reset() error
}

// Deadlines are as in net.Conn.
type Deadlines interface {
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// EventKind says what happened.
type EventKind int

// The kinds of events. For one peer they come in this order:
//
//	PeerUp -> PathChanged* -> PeerDown -> PeerUp ...
//
// A peer that restarted is reported down and up again.
const (
	PeerUp          EventKind = iota + 1 // the first connection of a peer was admitted
	PeerDown                             // its last connection ended
	PathChanged                          // another connection is the best now: move long-lived streams
	UnderlayChanged                      // this node's own addresses changed; Peer is zero
	PathsChanged                         // the peer has other connections now, whichever is the best
	CloneSeen                            // two machines have this peer's key; Peer may be this node itself
)

// String implements fmt.Stringer.
func (k EventKind) String() string {
	switch k {
	case PeerUp:
		return "peer up"
	case PeerDown:
		return "peer down"
	case PathChanged:
		return "path changed"
	case UnderlayChanged:
		return "underlay changed"
	case PathsChanged:
		return "paths changed"
	case CloneSeen:
		return "clone seen"
	}
	return "unknown"
}

// Event is one change of the mesh.
type Event struct {
	Kind EventKind
	Peer identity.ID
}

// Reason is why a connection was closed, as far as the other side is told.
type Reason uint8

// The reasons. Their numbers travel and never change; an unknown one is ReasonNone.
const (
	ReasonNone     Reason = iota // nothing that the other side should act on
	ReasonShutdown               // the process ends
	ReasonReplaced               // another connection of the same peer is better
	ReasonRefused                // the network's token was not proven
	ReasonClone                  // another machine with the same identity key is connected
)

// String implements fmt.Stringer.
func (r Reason) String() string {
	switch r {
	case ReasonShutdown:
		return "shutdown"
	case ReasonReplaced:
		return "replaced"
	case ReasonRefused:
		return "refused"
	case ReasonClone:
		return "clone"
	}
	return "none"
}
