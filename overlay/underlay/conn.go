package underlay

import (
	"context"
	"net/netip"
	"sync"
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
type Conn struct {
	under         *Underlay
	peer          identity.ID
	transport     Transport
	local, remote netip.AddrPort
	socket        *socket.Socket // nil over TCP
	mux           muxer
	release       func() // what the connection held, after its end
	closing       sync.Once
	gone          chan struct{} // closed when nothing of it is left
}

// Peer is the other end's ID, as its handshake proved it.
func (c *Conn) Peer() identity.ID { return c.peer }

// Transport returns what the connection runs on.
func (c *Conn) Transport() Transport { return c.transport }

// Local is this end's address. Over QUIC it is the unspecified one where the kernel
// chooses it for each packet: on connections that were dialled from a socket that listens
// on all addresses.
func (c *Conn) Local() netip.AddrPort { return c.local }

// Remote is the other end's address.
func (c *Conn) Remote() netip.AddrPort { return c.remote }

// Socket is the UDP socket that the connection uses; nil over TCP.
func (c *Conn) Socket() *socket.Socket { return c.socket }

// OpenStream opens a stream. Over QUIC the peer hears of it with the first write.
func (c *Conn) OpenStream(ctx context.Context) (link.Stream, error) {
	s, err := c.mux.open(ctx)
	if err != nil {
		return nil, explain("open stream", err, c.mux.ended())
	}
	return s, nil
}

// AcceptStream waits for a stream of the peer. Over TCP an accepted connection reads little
// before it is first called: a peer that was not let in yet fills no memory.
func (c *Conn) AcceptStream(ctx context.Context) (link.Stream, error) {
	s, err := c.mux.accept(ctx)
	if err != nil {
		return nil, explain("accept stream", err, c.mux.ended())
	}
	return s, nil
}

// Close ends the connection and its streams, and tells the peer why. It does not wait for
// the network, and does nothing the second time.
func (c *Conn) Close(reason link.Reason) error {
	c.closing.Do(func() {
		go func() {
			c.mux.close(codeOf(reason))
			c.release()
			c.under.forget(c)
			close(c.gone)
		}()
	})
	return nil
}

// CloseReason is why the peer closed the connection, once it has, and link.ReasonNone
// where it did not say.
func (c *Conn) CloseReason() link.Reason { return reasonIn(c.mux.ended()) }
