package underlay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	p2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/socket"
)

// Errors of an Underlay; they may come wrapped.
var (
	ErrPortTaken = errors.New("the port is taken; another kairos may be running, or choose one with overlay.listen")
	ErrOff       = errors.New("the transport is switched off")
	ErrZone      = errors.New("an address with a zone is no underlay")

	errNotAllowed = errors.New("not allowed from there")
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

	bounds bounds
}

// bounds are times that a test may shorten, and a clock that it may set.
type bounds struct {
	handshake time.Duration        // HandshakeTime
	idle      time.Duration        // idleSocket
	interval  time.Duration        // interval
	clock     func() time.Duration // sleepClock
}

func (b bounds) withDefaults() bounds {
	b.handshake = cmp.Or(b.handshake, HandshakeTime)
	b.idle = cmp.Or(b.idle, idleSocket)
	b.interval = cmp.Or(b.interval, interval)
	if b.clock == nil {
		b.clock = sleepClock
	}
	return b
}

// Underlay is this machine's end of the network. It is safe for concurrent use.
type Underlay struct {
	cfg         Config
	log         *slog.Logger
	certificate *p2ptls.Identity
	keys        quicKeys
	limits      *limits
	bound       []netip.AddrPort
	tcp         []*net.TCPListener
	accepted    chan *Conn
	machine     machine
	refused     atomic.Uint64

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // accepts, and shakes hands with those who come

	mu        sync.Mutex
	closed    bool
	endpoints []*endpoint
	conns     map[*Conn]struct{}
	past      Stats // of sockets that are closed
}

// Open opens the sockets and listens: ErrPortTaken.
func Open(cfg Config) (_ *Underlay, err error) {
	if cfg.Key.IsZero() {
		return nil, errors.New("open underlay: no identity key")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.bounds = cfg.bounds.withDefaults()
	if cfg.Datagrams == nil {
		cfg.Datagrams = func(socket.Source, [][]byte) {}
	}
	u := &Underlay{
		cfg: cfg, log: cfg.Log, accepted: make(chan *Conn),
		conns: make(map[*Conn]struct{}),
	}
	u.ctx, u.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open underlay: %w", err), u.Close())
		}
	}()
	if u.certificate, err = newCertificate(cfg.Key); err != nil {
		return nil, err
	}
	if u.keys, err = newQUICKeys(cfg.Key); err != nil {
		return nil, err
	}
	if u.limits, err = newLimits(); err != nil {
		return nil, err
	}
	if err := u.listenAll(); err != nil {
		return nil, err
	}
	u.machine.init(u.log, cfg.bounds)
	u.work.Go(func() { u.machine.watch(u.ctx) })
	for _, l := range u.tcp {
		u.work.Go(func() { u.acceptTCP(l) })
	}
	for _, e := range u.endpoints {
		u.work.Go(func() { u.acceptQUIC(e) })
	}
	return u, nil
}

// Dial opens a connection to whoever has the ID want at an address, and fails with a
// *WrongPeerError if somebody else answers. With a zero want it takes whoever it is; the
// connection's Peer says who. It is bounded by ctx and by HandshakeTime.
func (u *Underlay) Dial(ctx context.Context, t Transport, remote netip.AddrPort, want identity.ID) (*Conn, error) {
	c, err := u.dial(ctx, t, remote, want)
	if err != nil {
		return nil, fmt.Errorf("dial %s over %s: %w", remote, t, err)
	}
	return c, nil
}

func (u *Underlay) dial(ctx context.Context, t Transport, remote netip.AddrPort, want identity.ID) (*Conn, error) {
	switch {
	case u.ctx.Err() != nil:
		return nil, net.ErrClosed
	case t == QUIC && u.cfg.NoQUIC, t == TCP && u.cfg.NoTCP, t != QUIC && t != TCP:
		return nil, ErrOff
	case remote.Addr().Zone() != "":
		return nil, ErrZone
	case !remote.IsValid() || remote.Port() == 0 || remote.Addr().IsUnspecified() || remote.Addr().IsMulticast():
		return nil, net.InvalidAddrError("nobody can be there")
	}
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	ctx, cancel := context.WithTimeout(ctx, u.cfg.bounds.handshake)
	defer cancel()
	dial := u.dialQUIC
	if t == TCP {
		dial = u.dialTCP
	}
	c, err := dial(ctx, remote, want)
	if err != nil {
		return nil, err
	}
	if !u.keep(c) {
		return nil, errors.Join(net.ErrClosed, c.Close(link.ReasonShutdown))
	}
	return c, nil
}

// Accept returns the next connection that came in, over any transport; net.ErrClosed
// after Close.
func (u *Underlay) Accept(ctx context.Context) (*Conn, error) {
	for {
		select {
		case c := <-u.accepted:
			if c.mux.ended() == nil {
				return c, nil
			}
			_ = c.Close(link.ReasonNone) // it has waited for too long
		case <-u.ctx.Done():
			return nil, net.ErrClosed
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// admit decides whether a connection may begin, and counts it.
func (u *Underlay) admit(t Transport, remote, local netip.AddrPort) (network.ConnManagementScope, error) {
	err := ErrZone
	if remote.Addr().Zone() == "" {
		if err = errNotAllowed; u.cfg.Allow == nil || u.cfg.Allow(remote, local) {
			var scope network.ConnManagementScope
			if scope, err = u.limits.open(network.DirInbound, t, remote); err == nil {
				return scope, nil
			}
		}
	}
	u.refused.Add(1)
	return nil, err
}

// Bound returns what is listened on, with real ports.
func (u *Underlay) Bound() []netip.AddrPort { return slices.Clone(u.bound) }

// Addrs returns this machine's unicast addresses in a stable order, the most useful first:
// those of the interface that the default route uses, those of other cards, tunnels, those
// that look like bridges for this machine alone, loopback. On an error it returns what it
// could read. Link-local IPv6 addresses are left out.
func (u *Underlay) Addrs() ([]netip.Addr, error) { return u.machine.addrs() }

// Changes delivers a value when links, addresses or routes of this machine have changed, or
// when it woke from sleep. Several changes in a row make one value, 100 ms after the first
// and then at most one a second. It is for one reader, and is never closed.
func (u *Underlay) Changes() <-chan struct{} { return u.machine.changes }

// Sockets returns the UDP sockets that are open now, those that were opened for dialling
// alone included.
func (u *Underlay) Sockets() []*socket.Socket {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []*socket.Socket
	for _, e := range u.endpoints {
		out = append(out, e.socket)
	}
	return out
}

// keep notes a connection that Close has to end; false after Close.
func (u *Underlay) keep(c *Conn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false
	}
	u.conns[c] = struct{}{}
	return true
}

// forget is for connections that are gone.
func (u *Underlay) forget(c *Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.conns, c)
}

// Close closes all connections that are left, with link.ReasonShutdown, and all sockets. It
// returns when nothing of the underlay runs any more; that takes a second or two where a
// peer over TCP does not answer.
func (u *Underlay) Close() error {
	u.cancel()
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		return nil
	}
	u.closed = true
	conns, endpoints := slices.Collect(maps.Keys(u.conns)), slices.Clone(u.endpoints)
	for _, e := range endpoints {
		if e.idle != nil {
			e.idle.Stop()
		}
	}
	u.mu.Unlock()
	var errs []error
	for _, l := range u.tcp {
		errs = append(errs, l.Close())
	}
	for _, c := range conns {
		_ = c.Close(link.ReasonShutdown) // does not fail
	}
	u.work.Wait()
	for _, c := range conns {
		<-c.gone
	}
	for _, e := range endpoints {
		errs = append(errs, e.close())
	}
	if u.limits != nil {
		errs = append(errs, u.limits.Close())
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range endpoints {
		u.dropLocked(e)
	}
	return errors.Join(errs...)
}
