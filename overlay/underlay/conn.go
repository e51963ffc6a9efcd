package underlay

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/socket"
)

// HandshakeTime bounds a handshake, in both directions: whoever has not finished by then
// is cut.
const HandshakeTime = 5 * time.Second

// Transport is what a connection runs on.
type Transport uint8

// The transports.
const (
	QUIC Transport = iota + 1
	TCP
)

// String implements fmt.Stringer.
func (t Transport) String() string {
	switch t {
	case QUIC:
		return "quic"
	case TCP:
		return "tcp"
	}
	return "unknown"
}

// Conn is one connection. It is safe for concurrent use. Its owner must Close it, also
// after it has ended by itself.
type Conn struct{}

// Peer is the other end's ID, as its handshake proved it.
func (c *Conn) Peer() identity.ID { return identity.ID{} }

// Transport returns what the connection runs on.
func (c *Conn) Transport() Transport { return 0 }

// Local is this end's address. Over QUIC it is the unspecified one where the kernel
// chooses it for each packet: on connections that were dialled from a socket that listens
// on all addresses.
func (c *Conn) Local() netip.AddrPort { return netip.AddrPort{} }

// Remote is the other end's address.
func (c *Conn) Remote() netip.AddrPort { return netip.AddrPort{} }

// Socket is the UDP socket that the connection uses; nil over TCP.
func (c *Conn) Socket() *socket.Socket { return nil }

// OpenStream opens a stream. The peer hears of it with the first write.
func (c *Conn) OpenStream(context.Context) (link.Stream, error) { return nil, errors.ErrUnsupported }

// AcceptStream waits for a stream of the peer. Over TCP an accepted connection reads little
// before it is first called: a peer that was not let in yet fills no memory.
func (c *Conn) AcceptStream(context.Context) (link.Stream, error) { return nil, errors.ErrUnsupported }

// Close ends the connection and its streams, and tells the peer why. It does not wait for
// the network.
func (c *Conn) Close(link.Reason) error { return nil }

// CloseReason is why the peer closed the connection, once it has, and link.ReasonNone
// where it did not say.
func (c *Conn) CloseReason() link.Reason { return link.ReasonNone }
