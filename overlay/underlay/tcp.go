package underlay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-yamux/v5"
	"golang.org/x/sys/unix"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
)

const (
	keepAlive = 30 * time.Second
	// acceptPause is how long nothing is accepted after that has failed: the process has
	// too many open files, say.
	acceptPause = 100 * time.Millisecond
)

// yamuxConfig is libp2p's, without pings: the mesh has its own beat.
func yamuxConfig() *yamux.Config {
	return &yamux.Config{
		AcceptBacklog:      maxStreams,
		PingBacklog:        32,
		MeasureRTTInterval: 24 * time.Hour,
		// A peer that stops reading is a matter for the beat, too; this is the bound for a
		// single write.
		ConnectionWriteTimeout:  30 * time.Second,
		MaxIncomingStreams:      maxStreams,
		InitialStreamWindowSize: 2 << 20,
		MaxStreamWindowSize:     16 << 20,
		LogOutput:               io.Discard,
		MaxMessageSize:          128 << 10, // of a stream, before others have their turn
	}
}

// maxSegment is the TCP payload that fits the smallest packet every link of IPv6 takes
// (RFC 8200, section 5). Kernels do not look for what a path takes unless they are told
// to (RFC 4821), and learn nothing where ICMP is dropped.
const maxSegment = 1280 - 40 - 20

// smallSegments bounds the segments of a connection in both directions: what this end
// announces binds the other one.
func smallSegments(_, _ string, raw syscall.RawConn) error {
	var optErr error
	err := raw.Control(func(fd uintptr) {
		optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, maxSegment)
	})
	return errors.Join(err, optErr)
}

func (u *Underlay) listenTCP(at netip.AddrPort) (*net.TCPListener, error) {
	config := net.ListenConfig{Control: smallSegments, KeepAlive: keepAlive}
	config.SetMultipathTCP(false) // its sockets do not take the option
	l, err := config.Listen(u.ctx, "tcp"+family(at.Addr()), at.String())
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// acceptTCP serves one listener until it is closed.
func (u *Underlay) acceptTCP(l *net.TCPListener) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		raw, err := l.AcceptTCP()
		if err == nil {
			u.beforeTCP(raw)
			continue
		}
		if u.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		u.log.Warn("cannot accept a connection over TCP", "addr", l.Addr().String(), "err", err)
		pause.Reset(acceptPause)
		select {
		case <-pause.C:
		case <-u.ctx.Done():
			return
		}
	}
}

// beforeTCP turns unwanted connections away before anything is read, and shakes hands with
// the others.
func (u *Underlay) beforeTCP(raw *net.TCPConn) {
	scope, err := u.admit(TCP, addrPortOf(raw.RemoteAddr()), addrPortOf(raw.LocalAddr()))
	if err != nil {
		// Nothing was said on it.
		_ = raw.Close()
		return
	}
	u.work.Go(func() {
		ctx, cancel := context.WithTimeout(u.ctx, u.cfg.bounds.handshake)
		defer cancel()
		c, err := u.secure(ctx, raw, &handshake{scope: scope})
		if err != nil {
			u.log.Debug("handshake failed", "addr", raw.RemoteAddr().String(), "err", err)
			return
		}
		u.deliver(c)
	})
}

func (u *Underlay) dialTCP(ctx context.Context, remote netip.AddrPort, want identity.ID) (*Conn, error) {
	scope, err := u.limits.open(network.DirOutbound, TCP, remote)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Control: smallSegments, KeepAlive: keepAlive}
	raw, err := dialer.DialTCP(ctx, "tcp"+family(remote.Addr()), netip.AddrPort{}, remote)
	if err != nil {
		scope.Done()
		return nil, err
	}
	h := &handshake{dialled: true, want: want, scope: scope}
	c, err := u.secure(ctx, raw, h)
	if err != nil {
		return nil, h.explain(err)
	}
	return c, nil
}

// secure makes a connection of a TCP connection: TLS, and streams on it. An error closes
// the TCP connection, and ends the scope.
func (u *Underlay) secure(ctx context.Context, raw *net.TCPConn, h *handshake) (c *Conn, err error) {
	defer func() {
		if err != nil {
			h.scope.Done()
			_ = raw.Close() // with a handshake that has failed
		}
	}()
	tlsSide, muxSide := tls.Server, yamux.Server
	if h.dialled {
		tlsSide, muxSide = tls.Client, yamux.Client
	}
	below := newCorkedConn(raw)
	over := tlsSide(below, h.config(u.certificate))
	if err := over.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("shake hands: %w", err)
	}
	if err := h.done(over.ConnectionState()); err != nil {
		return nil, err
	}
	secure := newSecureConn(over, below, raw, !h.dialled)
	session, err := muxSide(secure, yamuxConfig(), func() (yamux.MemoryManager, error) {
		return h.scope.PeerScope().BeginSpan()
	})
	if err != nil {
		return nil, fmt.Errorf("start streams: %w", err)
	}
	return &Conn{
		under: u, peer: h.peer, transport: TCP,
		local: addrPortOf(raw.LocalAddr()), remote: addrPortOf(raw.RemoteAddr()),
		mux: newYamuxMuxer(session, secure), gone: make(chan struct{}),
		release: func() {
			_ = raw.Close() // after all that was to be said on it
			h.scope.Done()
		},
	}, nil
}

var _ link.Stream = (*yamux.Stream)(nil)
