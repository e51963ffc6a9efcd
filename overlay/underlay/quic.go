package underlay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/quic-go/quic-go"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/socket"
)

// maxStreams is how many streams a peer may have open on one connection.
const maxStreams = 256

// idleSocket is how long a socket that was opened for dialling alone stays when nobody
// uses it any more. A closed connection may have to say so again meanwhile.
const idleSocket = 10 * time.Second

// quicConfig is for both ends. Packets have the least size that QUIC allows, 1200 bytes,
// and stay so: with IP and UDP around it such a packet fits a path of 1280 bytes, which
// every link of IPv6 takes, and one that shrinks to that later. quic-go begins with 1280
// bytes, and never goes back to less than what it has found once. What it carries here is
// small; data packets find their own size.
func quicConfig() *quic.Config {
	return &quic.Config{
		Versions:                   []quic.Version{quic.Version1},
		InitialPacketSize:          1200,
		DisablePathMTUDiscovery:    true,
		HandshakeIdleTimeout:       HandshakeTime,
		MaxIncomingStreams:         maxStreams,
		MaxIncomingUniStreams:      -1,
		MaxStreamReceiveWindow:     10 << 20,
		MaxConnectionReceiveWindow: 15 << 20,
		KeepAlivePeriod:            15 * time.Second,
		AllowConnectionWindowIncrease: func(c *quic.Conn, more uint64) bool {
			return widen(handshakeIn(c.Context()).scope, more)
		},
	}
}

// quicKeys are secrets of this node that outlive the process. A restarted node tells its
// peers at once that their old connections are gone (RFC 9000, section 10.3).
type quicKeys struct {
	reset quic.StatelessResetKey
	token quic.TokenGeneratorKey
}

func newQUICKeys(key identity.Key) (k quicKeys, err error) {
	reset, err := derive(key, "quic stateless reset")
	if err != nil {
		return k, err
	}
	token, err := derive(key, "quic token")
	return quicKeys{reset: reset, token: token}, err
}

// handshakeKey is where a connection's context has its handshake.
type handshakeKey struct{}

func withHandshake(ctx context.Context, h *handshake) context.Context {
	return context.WithValue(ctx, handshakeKey{}, h)
}

func handshakeIn(ctx context.Context) *handshake { return ctx.Value(handshakeKey{}).(*handshake) }

// endpoint is one UDP socket and the QUIC on it.
type endpoint struct {
	socket   *socket.Socket
	local    netip.AddrPort
	quic     *quic.Transport
	listener *quic.Listener // nil: for dialling alone

	// Guarded by Underlay.mu.
	drops tally
	users int         // of one without a listener
	idle  *time.Timer // closes it
}

// newEndpoint opens a socket, and QUIC on it.
func (u *Underlay) newEndpoint(at netip.AddrPort) (*endpoint, error) {
	s, err := socket.Listen("udp"+family(at.Addr()), net.UDPAddrFromAddrPort(at), u.cfg.Datagrams)
	if err != nil {
		return nil, err
	}
	e := &endpoint{socket: s, local: addrPortOf(s.LocalAddr())}
	e.quic = &quic.Transport{
		Conn:                             s,
		StatelessResetKey:                &u.keys.reset,
		TokenGeneratorKey:                &u.keys.token,
		DisableVersionNegotiationPackets: true, // there is one version
		VerifySourceAddress:              u.limits.verify,
		ConnContext: func(ctx context.Context, from *quic.ClientInfo) (context.Context, error) {
			return u.beforeQUIC(ctx, addrPortOf(from.RemoteAddr), e.local)
		},
	}
	return e, nil
}

// beforeQUIC turns unwanted connections away at their first packet.
func (u *Underlay) beforeQUIC(ctx context.Context, remote, local netip.AddrPort) (context.Context, error) {
	scope, err := u.admit(QUIC, remote, local)
	if err != nil {
		return ctx, err
	}
	context.AfterFunc(ctx, scope.Done)
	return withHandshake(ctx, &handshake{scope: scope}), nil
}

// listenQUIC opens an endpoint that listens.
func (u *Underlay) listenQUIC(at netip.AddrPort) (*endpoint, error) {
	e, err := u.newEndpoint(at)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{
		NextProtos: []string{alpn},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			return handshakeIn(hello.Context()).config(u.certificate), nil
		},
	}
	if e.listener, err = e.quic.Listen(conf, quicConfig()); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// close closes the socket, and ends what connections are left without a word.
func (e *endpoint) close() error {
	err := e.quic.Close()
	return errors.Join(err, e.socket.Close())
}

// acceptQUIC serves one endpoint until it is closed.
func (u *Underlay) acceptQUIC(e *endpoint) {
	for {
		qc, err := e.listener.Accept(u.ctx)
		if err != nil {
			if u.ctx.Err() == nil {
				u.log.Warn("nothing is accepted any more over QUIC", "addr", e.local.String(), "err", err)
			}
			return
		}
		h := handshakeIn(qc.Context())
		if err := h.done(qc.ConnectionState().TLS); err != nil {
			u.log.Debug("connection refused", "addr", qc.RemoteAddr().String(), "err", err)
			quicMuxer{qc}.close(0)
			continue
		}
		c := u.newQUIC(qc, e, func() {})
		u.work.Go(func() { u.deliver(c) })
	}
}

// newQUIC makes a Conn after the handshake. The scope ends with the connection's context.
func (u *Underlay) newQUIC(qc *quic.Conn, e *endpoint, release func()) *Conn {
	return &Conn{
		under: u, peer: handshakeIn(qc.Context()).peer, transport: QUIC,
		local: addrPortOf(qc.LocalAddr()), remote: addrPortOf(qc.RemoteAddr()),
		socket: e.socket, mux: quicMuxer{qc}, release: release, gone: make(chan struct{}),
	}
}

func (u *Underlay) dialQUIC(ctx context.Context, remote netip.AddrPort, want identity.ID) (*Conn, error) {
	e, release, err := u.endpointFor(remote.Addr())
	if err != nil {
		return nil, err
	}
	c, err := u.dialFrom(ctx, e, remote, want)
	if err != nil {
		release()
		return nil, err
	}
	c.release = release
	return c, nil
}

// dialFrom dials out of one endpoint.
func (u *Underlay) dialFrom(ctx context.Context, e *endpoint, remote netip.AddrPort, want identity.ID) (*Conn, error) {
	scope, err := u.limits.open(network.DirOutbound, QUIC, remote)
	if err != nil {
		return nil, err
	}
	h := &handshake{dialled: true, want: want, scope: scope}
	qc, err := e.quic.Dial(withHandshake(ctx, h), net.UDPAddrFromAddrPort(remote), h.config(u.certificate), quicConfig())
	if err != nil {
		scope.Done()
		return nil, h.explain(err)
	}
	context.AfterFunc(qc.Context(), scope.Done)
	if err := h.done(qc.ConnectionState().TLS); err != nil {
		quicMuxer{qc}.close(0)
		return nil, err
	}
	return u.newQUIC(qc, e, nil), nil
}

// explain says who answered where it was not the one that was asked for.
func (h *handshake) explain(err error) error {
	if !h.want.IsZero() && !h.peer.IsZero() && h.peer != h.want {
		return &WrongPeerError{Want: h.want, Got: h.peer}
	}
	return err
}

// endpointFor finds the endpoint from which an address is dialled, or opens one for
// dialling alone. release ends its use.
func (u *Underlay) endpointFor(remote netip.Addr) (e *endpoint, release func(), err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil, nil, net.ErrClosed
	}
	var locals []netip.Addr
	for _, e := range u.endpoints {
		locals = append(locals, e.local.Addr())
	}
	i := choose(locals, remote, func() netip.Addr { return sourceFor(remote) })
	if i < 0 {
		if e, err = u.newEndpoint(netip.AddrPortFrom(unspecified(remote), 0)); err != nil {
			return nil, nil, fmt.Errorf("open socket: %w", err)
		}
		u.endpoints = append(u.endpoints, e)
	} else {
		e = u.endpoints[i]
	}
	if e.listener != nil {
		return e, func() {}, nil
	}
	e.users++
	if e.idle != nil {
		e.idle.Stop()
	}
	return e, func() { u.releaseEndpoint(e) }, nil
}

// releaseEndpoint closes a socket for dialling some time after its last use.
func (u *Underlay) releaseEndpoint(e *endpoint) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if e.users--; e.users > 0 || u.closed {
		return
	}
	e.idle = time.AfterFunc(u.cfg.bounds.idle, func() {
		if !u.drop(e) {
			return
		}
		if err := e.close(); err != nil {
			u.log.Debug("cannot close socket", "addr", e.local.String(), "err", err)
		}
	})
}

// drop takes an unused endpoint off the list.
func (u *Underlay) drop(e *endpoint) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if e.users > 0 || u.closed {
		return false
	}
	u.dropLocked(e)
	return true
}

// deliver hands an accepted connection to Accept, in HandshakeTime or not at all.
func (u *Underlay) deliver(c *Conn) {
	timer := time.NewTimer(u.cfg.bounds.handshake)
	defer timer.Stop()
	if !u.keep(c) {
		_ = c.Close(link.ReasonShutdown)
		return
	}
	select {
	case u.accepted <- c:
	case <-timer.C:
		_ = c.Close(link.ReasonNone)
	case <-u.ctx.Done():
		_ = c.Close(link.ReasonShutdown)
	}
}
