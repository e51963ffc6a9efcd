package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"

	"github.com/kairos-io/kairos/overlay/admission"
	"github.com/kairos-io/kairos/overlay/identity"
)

// The transports, as PeerInfo names them.
const (
	quicName = "quic"
	tcpName  = "tcp"
)

// Bounds of what one peer may make this node do.
const (
	maxInbound      = 128              // handlers at once for one connection
	headerTimeout   = 10 * time.Second // for the name of a stream's protocol
	openTimeout     = 10 * time.Second // when the caller's context has no deadline
	maxProtocolName = 255
)

// Why a connection of ours ended; the reason goes to the log.
var (
	errShutdown   = errors.New("this node shuts down")
	errDead       = errors.New("peer fell silent")
	errReplaced   = errors.New("replaced by another connection")
	errEarlierRun = errors.New("belonged to an earlier run of the peer")
	errForgotten  = errors.New("disconnected on request")
)

// conn is one admitted connection.
type conn struct {
	m         *Mesh
	raw       transport.CapableConn
	adm       admission.Admission
	dialled   bool
	transport string
	remote    netip.AddrPort
	admitted  time.Duration // mesh time
	since     time.Time

	heard atomic.Int64 // mesh time of the last byte read, ns
	sent  atomic.Int64 // mesh time of the last byte written, ns
	rtt   atomic.Int64 // ns
	beat  beat

	inbound   chan struct{} // a token for each handler that runs
	closeOnce sync.Once
	reason    error // set before done is closed
	done      chan struct{}
}

func (m *Mesh) newConn(raw transport.CapableConn, adm admission.Admission, dialled bool) *conn {
	c := &conn{
		m: m, raw: raw, adm: adm, dialled: dialled,
		transport: transportOf(raw), remote: remoteOf(raw),
		admitted: m.now(), since: time.Now(),
		inbound: make(chan struct{}, maxInbound),
		done:    make(chan struct{}),
	}
	c.heard.Store(int64(c.admitted))
	c.sent.Store(int64(c.admitted))
	c.rtt.Store(int64(adm.RTT))
	return c
}

func (c *conn) peer() identity.ID { return c.adm.Peer }

// close ends the connection; its accept loop then takes it off the table.
func (c *conn) close(reason error) {
	c.closeOnce.Do(func() {
		c.reason = reason
		close(c.done)
		code := network.ConnNoError
		switch reason {
		case errShutdown:
			code = network.ConnShutdown
		case errReplaced, errEarlierRun:
			code = network.ConnSupplanted
		}
		// The connection is given up: how its closing fails does not matter.
		_ = c.raw.CloseWithError(code)
	})
}

// serve accepts the peer's streams until the connection ends.
func (c *conn) serve() {
	defer c.beat.stop()
	for {
		s, err := c.raw.AcceptStream()
		if err != nil {
			c.close(err)
			return
		}
		select {
		case c.inbound <- struct{}{}:
			c.m.wg.Go(func() {
				defer func() { <-c.inbound }()
				c.dispatch(s)
			})
		default:
			_ = s.ResetWithError(network.StreamResourceLimitExceeded)
			c.m.stats.streamsRefused.Add(1)
		}
	}
}

// dispatch reads which protocol a stream is for and hands it over.
func (c *conn) dispatch(raw network.MuxedStream) {
	name, err := readHeader(raw)
	if err != nil {
		_ = raw.Reset()
		return
	}
	c.heard.Store(int64(c.m.now()))
	s := &stream{MuxedStream: raw, c: c}
	if name == "" {
		c.beat.read(c, s)
		return
	}
	c.m.mu.Lock()
	handler := c.m.handlers[name]
	c.m.mu.Unlock()
	if handler == nil || !c.adm.Standing.May(name) {
		_ = raw.ResetWithError(network.StreamProtocolNegotiationFailed)
		c.m.stats.streamsRefused.Add(1)
		return
	}
	handler(c.peer(), s)
}

func readHeader(s network.MuxedStream) (string, error) {
	if err := s.SetReadDeadline(time.Now().Add(headerTimeout)); err != nil {
		return "", err
	}
	var buf [1 + maxProtocolName]byte
	if _, err := io.ReadFull(s, buf[:1]); err != nil {
		return "", err
	}
	name := buf[1 : 1+int(buf[0])]
	if _, err := io.ReadFull(s, name); err != nil {
		return "", err
	}
	return string(name), s.SetReadDeadline(time.Time{})
}

// open opens a stream and says what it is for.
func (c *conn) open(ctx context.Context, protocol string) (*stream, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	raw, err := c.raw.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	s := &stream{MuxedStream: raw, c: c}
	if err := s.writeHeader(ctx, protocol); err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("name protocol: %w", err)
	}
	return s, nil
}

// stream stamps the connection's liveness on the way through.
type stream struct {
	network.MuxedStream
	c *conn
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.MuxedStream.Read(p)
	if n > 0 {
		s.c.heard.Store(int64(s.c.m.now()))
	}
	return n, err
}

// Write implements io.Writer.
func (s *stream) Write(p []byte) (int, error) {
	n, err := s.MuxedStream.Write(p)
	if n > 0 {
		s.c.sent.Store(int64(s.c.m.now()))
	}
	return n, err
}

func (s *stream) writeHeader(ctx context.Context, protocol string) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := s.SetWriteDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := s.Write(append([]byte{byte(len(protocol))}, protocol...)); err != nil {
		return err
	}
	return s.SetWriteDeadline(time.Time{})
}

// checkProtocol panics for a name that cannot be sent: a mistake in the program.
func checkProtocol(name string) {
	if name == "" || len(name) > maxProtocolName {
		panic(fmt.Sprintf("mesh: protocol name of %d bytes", len(name)))
	}
}
