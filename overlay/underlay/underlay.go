package underlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/socket"
)

// Errors of an Underlay; they may come wrapped.
var (
	ErrPortTaken = errors.New("the port is taken; another kairos may be running, or choose one with overlay.listen")
	ErrOff       = errors.New("the transport is switched off")
	ErrZone      = errors.New("an address with a zone cannot be dialled")
)

// WrongPeerError says that somebody else than the wanted peer answers at an address.
// Who it is was proven by the handshake.
type WrongPeerError struct{ Want, Got identity.ID }

// Error implements error.
func (e *WrongPeerError) Error() string {
	return fmt.Sprintf("%s answers there, not %s", e.Got.Short(), e.Want.Short())
}

// Config of an Underlay. Key is required.
type Config struct {
	Key identity.Key
	// Listen is opened for UDP and TCP both. Where the port is 0, one is drawn that is
	// free for all of these addresses. An address family that the machine lacks is passed
	// over as long as something can be opened.
	Listen []netip.AddrPort
	// Allow, when set, decides whether a connection from remote may start its handshake. It
	// must be fast and safe for concurrent use. local is where it came in; over QUIC its
	// address may be the unspecified one.
	Allow func(remote, local netip.AddrPort) bool
	// Datagrams gets what comes in over UDP and is not QUIC's, on the goroutines that read
	// the sockets. Default: it is dropped.
	Datagrams socket.Receiver
	// NoQUIC and NoTCP switch a transport off in both directions.
	NoQUIC, NoTCP bool
	Log           *slog.Logger // default: discard
}

// Underlay is this machine's end of the network. It is safe for concurrent use.
type Underlay struct{}

// Open opens the sockets and listens: ErrPortTaken.
func Open(Config) (*Underlay, error) { return nil, errors.ErrUnsupported }

// Dial opens a connection to whoever has the ID want at an address, and fails with a
// *WrongPeerError if somebody else answers. With a zero want it takes whoever it is; the
// connection's Peer says who. It is bounded by ctx and by HandshakeTime.
func (u *Underlay) Dial(_ context.Context, _ Transport, _ netip.AddrPort, _ identity.ID) (*Conn, error) {
	return nil, errors.ErrUnsupported
}

// Accept returns the next connection that came in, over any transport; net.ErrClosed
// after Close.
func (u *Underlay) Accept(context.Context) (*Conn, error) { return nil, errors.ErrUnsupported }

// Bound returns what is listened on, with real ports.
func (u *Underlay) Bound() []netip.AddrPort { return nil }

// Addrs returns this machine's unicast addresses in a stable order, the most useful first:
// those of the interface that the default route uses, those of other cards, tunnels, those
// that look like bridges for this machine alone, loopback. On an error it returns what it
// could read.
func (u *Underlay) Addrs() ([]netip.Addr, error) { return nil, errors.ErrUnsupported }

// Changes delivers a value when links, addresses or routes of this machine have changed, or
// when it woke from sleep. Several changes in a row make one value, 100 ms after the first
// and then at most one a second. It is for one reader, and is never closed.
func (u *Underlay) Changes() <-chan struct{} { return nil }

// Sockets returns the UDP sockets that are open now, those that were opened for dialling
// alone included.
func (u *Underlay) Sockets() []*socket.Socket { return nil }

// Stats returns the counters.
func (u *Underlay) Stats() Stats { return Stats{} }

// Close closes all connections that are left, with link.ReasonShutdown, and all sockets. It
// returns when nothing of the underlay runs any more.
func (u *Underlay) Close() error { return nil }

// Stats counts what happened since Open. Counters of sockets that are closed stay in.
type Stats struct {
	KernelDrops uint64 // packets that the kernel threw away because a socket's buffer was full
	QUICDrops   uint64 // packets of connections that were thrown away because too many came at once
	Unsegmented int    // open sockets that cannot send several packets with one system call
	Refused     uint64 // connections turned away by Allow or by the limits, before their handshake
}
