package mesh

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	p2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quictpt "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"

	"github.com/kairos-io/kairos/overlay/admission"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/socket"
)

// portTries is how often a port is drawn that must be free for UDP and TCP both.
const portTries = 16

// underlay is the transports and what listens on them.
type underlay struct {
	limits    network.ResourceManager
	reuse     *quicreuse.ConnManager
	quic, tcp transport.Transport // nil when switched off
	tls       *p2ptls.Transport   // for asking an unknown peer's ID over TCP
	listeners []transport.Listener
	bound     []netip.AddrPort // what the listeners listen on, with real ports

	mu      sync.Mutex
	sockets []*socket.Socket // of QUIC
	drops   tally            // of the kernel, for each of them
}

func openUnderlay(m *Mesh) (_ *underlay, err error) {
	key, err := crypto.UnmarshalEd25519PrivateKey(m.cfg.Key.Private())
	if err != nil {
		return nil, fmt.Errorf("read identity key: %w", err)
	}
	u := &underlay{}
	defer func() {
		if err != nil {
			u.closeListeners()
			err = errors.Join(err, u.close())
		}
	}()
	if u.limits, err = newLimits(); err != nil {
		return nil, fmt.Errorf("set up limits: %w", err)
	}
	gater := &gater{m: m}
	if !m.cfg.NoQUIC {
		if err := u.openQUIC(m, key, gater); err != nil {
			return nil, fmt.Errorf("set up QUIC: %w", err)
		}
	}
	if !m.cfg.NoTCP {
		if err := u.openTCP(key, gater); err != nil {
			return nil, fmt.Errorf("set up TCP: %w", err)
		}
	}
	return u, u.listenAll(m, m.cfg.Listen)
}

// newLimits configures libp2p's resource manager. Its defaults (8 connections
// and one new one in 5 s for an IPv4 address) would shut out a site of more
// than a few nodes behind one NAT; admission has the tighter, failure-based
// limit for strangers.
func newLimits() (network.ResourceManager, error) {
	limits := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: 4096, ConnsInbound: 2048, ConnsOutbound: 2048, FD: 2048, Memory: 512 << 20,
		},
		// Handshakes under way: more than one address alone can hold open.
		Transient: rcmgr.ResourceLimits{
			Conns: 1536, ConnsInbound: 1024, ConnsOutbound: 512, FD: 1024, Memory: 64 << 20,
		},
		// A dial to a peer whose ID is unknown counts for the empty peer ID.
		PeerDefault: rcmgr.ResourceLimits{
			Conns: 64, ConnsInbound: 16, ConnsOutbound: 64, FD: 64, Memory: 64 << 20,
		},
	}.Build(rcmgr.DefaultLimits.AutoScale())
	perSite := func(bits, conns int) rcmgr.ConnLimitPerSubnet {
		return rcmgr.ConnLimitPerSubnet{PrefixLength: bits, ConnCount: conns}
	}
	pace := rate.Limit{RPS: 32, Burst: 512}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{perSite(32, 256)},
			[]rcmgr.ConnLimitPerSubnet{perSite(56, 256), perSite(48, 1024)}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: []rate.PrefixLimit{
				{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")},
			},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: pace}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: pace}},
				GracePeriod:      time.Minute,
			},
		}))
}

func (u *underlay) openQUIC(m *Mesh, key crypto.PrivKey, gater *gater) error {
	// Derived from the identity, so that a restarted node can tell its peers
	// at once that their old connections are gone (RFC 9000 section 10.3).
	reset, err := derive(m.cfg.Key, "quic stateless reset")
	if err != nil {
		return err
	}
	retry, err := derive(m.cfg.Key, "quic token")
	if err != nil {
		return err
	}
	u.reuse, err = quicreuse.NewConnManager(quic.StatelessResetKey(reset), quic.TokenGeneratorKey(retry),
		quicreuse.ConnContext(func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
			return u.beforeHandshake(ctx, m, info)
		}),
		quicreuse.VerifySourceAddress(u.limits.VerifySourceAddress),
		quicreuse.OverrideListenUDP(func(network string, addr *net.UDPAddr) (net.PacketConn, error) {
			return u.listenUDP(m, network, addr)
		}))
	if err != nil {
		return err
	}
	u.quic, err = quictpt.NewTransport(key, u.reuse, nil, gater, u.limits)
	return err
}

// beforeHandshake turns unwanted QUIC connections away at their first packet.
func (u *underlay) beforeHandshake(ctx context.Context, m *Mesh, info *quic.ClientInfo) (context.Context, error) {
	from := addrPortOf(info.RemoteAddr)
	if !m.acceptable(from.Addr()) || !m.gate.Allow(from.Addr()) {
		return ctx, admission.ErrLimit
	}
	addr, err := multiaddr(from, quicName)
	if err != nil {
		return ctx, err
	}
	scope, err := u.limits.OpenConnection(network.DirInbound, false, addr)
	if err != nil {
		return ctx, err
	}
	ctx = network.WithConnManagementScope(ctx, scope)
	context.AfterFunc(ctx, scope.Done)
	return ctx, nil
}

func (u *underlay) openTCP(key crypto.PrivKey, gater *gater) error {
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamuxTransport()}}
	var err error
	if u.tls, err = p2ptls.New(p2ptls.ID, key, muxers); err != nil {
		return err
	}
	up, err := upgrader.New([]sec.SecureTransport{corkedTLS{u.tls}}, muxers, nil, u.limits, gater)
	if err != nil {
		return err
	}
	u.tcp, err = tcp.NewTCPTransport(up, u.limits, nil, tcp.WithDialerForAddr(func(ma.Multiaddr) (tcp.ContextDialer, error) {
		return &net.Dialer{Control: smallSegments}, nil
	}))
	return err
}

// yamuxTransport is libp2p's yamux without its pings: the mesh has its own beat.
func yamuxTransport() *yamux.Transport {
	cfg := *yamux.DefaultTransport.Config()
	cfg.EnableKeepAlive = false
	cfg.MeasureRTTInterval = 24 * time.Hour
	// A peer that stops reading is a matter for the beat, too; this is the
	// bound for a single write.
	cfg.ConnectionWriteTimeout = 30 * time.Second
	cfg.MaxMessageSize = maxMessage
	cfg.InitialStreamWindowSize = 2 << 20
	return (*yamux.Transport)(&cfg)
}

func derive(key identity.Key, label string) ([32]byte, error) {
	out, err := hkdf.Key(sha256.New, key.Private().Seed(), nil, "kairos/"+label, 32)
	if err != nil {
		return [32]byte{}, fmt.Errorf("derive %s key: %w", label, err)
	}
	return [32]byte(out), nil
}

// listenAll opens every address for UDP and TCP. An address family that the
// machine does not have is passed over as long as something can be opened.
func (u *underlay) listenAll(m *Mesh, addrs []netip.AddrPort) error {
	var missing []error
	for _, addr := range addrs {
		err := u.listen(addr)
		switch {
		case err == nil:
		case errors.Is(err, syscall.EAFNOSUPPORT), errors.Is(err, syscall.EADDRNOTAVAIL):
			missing = append(missing, err)
			m.log.Info("listen address is not available here", "addr", addr.String(), "err", err)
		case errors.Is(err, syscall.EADDRINUSE):
			return fmt.Errorf("listen on %s: %w", addr, ErrPortTaken)
		default:
			return err
		}
	}
	if len(u.bound) == 0 {
		return errors.Join(missing...)
	}
	return nil
}

// listen opens one address for UDP and TCP on the same port.
func (u *underlay) listen(addr netip.AddrPort) error {
	var err error
	for range portTries {
		if err = u.listenOnce(addr); err == nil || addr.Port() != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
	return err
}

func (u *underlay) listenOnce(addr netip.AddrPort) error {
	var opened []transport.Listener
	for _, name := range []string{quicName, tcpName} {
		t := u.transport(name)
		if t == nil {
			continue
		}
		at, err := multiaddr(addr, name)
		if err != nil {
			return err
		}
		l, err := t.Listen(at)
		if err != nil {
			for _, l := range opened {
				err = errors.Join(err, l.Close())
			}
			return fmt.Errorf("listen on %s (%s): %w", addr, name, err)
		}
		opened = append(opened, l)
		addr = addrPortOf(l.Addr())
	}
	u.listeners = append(u.listeners, opened...)
	u.bound = append(u.bound, addr)
	return nil
}

func (u *underlay) transport(name string) transport.Transport {
	if name == quicName {
		return u.quic
	}
	return u.tcp
}

func (u *underlay) closeListeners() {
	for _, l := range u.listeners {
		// Nothing is left to do about a listener that does not close.
		_ = l.Close()
	}
	u.listeners = nil
}

func (u *underlay) close() error {
	var errs []error
	if u.reuse != nil {
		errs = append(errs, u.reuse.Close())
	}
	if u.limits != nil {
		errs = append(errs, u.limits.Close())
	}
	return errors.Join(errs...)
}

// learn asks the node at a TCP address for its ID: a TLS handshake that takes
// any key, and no more. It proves nothing about the token.
func (u *underlay) learn(ctx context.Context, addr netip.AddrPort) (_ identity.ID, err error) {
	d := net.Dialer{Control: smallSegments}
	raw, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return identity.ID{}, err
	}
	defer func() { _ = raw.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := raw.SetDeadline(deadline); err != nil {
			return identity.ID{}, err
		}
	}
	if err := selectTLS(raw); err != nil {
		return identity.ID{}, fmt.Errorf("negotiate TLS: %w", err)
	}
	secured, err := u.tls.SecureOutbound(ctx, raw, "")
	if err != nil {
		return identity.ID{}, fmt.Errorf("shake hands: %w", err)
	}
	defer func() { _ = secured.Close() }()
	return peerOf(secured)
}

// peerID is the libp2p name of a node; empty for the zero ID.
func peerID(id identity.ID) (peer.ID, error) {
	if id.IsZero() {
		return "", nil
	}
	key, err := crypto.UnmarshalEd25519PublicKey(id[:])
	if err != nil {
		return "", err
	}
	return peer.IDFromPublicKey(key)
}

// gater keeps unwanted connections from starting a handshake over TCP.
type gater struct{ m *Mesh }

// InterceptAccept implements connmgr.ConnectionGater.
func (g *gater) InterceptAccept(c network.ConnMultiaddrs) bool {
	from, to := addrPortOfMulti(c.RemoteMultiaddr()), addrPortOfMulti(c.LocalMultiaddr())
	return g.m.acceptable(from.Addr()) && g.m.acceptable(to.Addr()) && g.m.gate.Allow(from.Addr())
}

// InterceptPeerDial implements connmgr.ConnectionGater; the mesh dials itself.
func (g *gater) InterceptPeerDial(peer.ID) bool { return true }

// InterceptAddrDial implements connmgr.ConnectionGater; the mesh dials itself.
func (g *gater) InterceptAddrDial(peer.ID, ma.Multiaddr) bool { return true }

// InterceptSecured implements connmgr.ConnectionGater; the mesh looks at peers itself.
func (g *gater) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return true
}

// InterceptUpgraded implements connmgr.ConnectionGater; the mesh has no swarm that asks.
func (g *gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }
