package mesh

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/secret"
)

// Bounds of what one peer may make this node do.
const (
	maxInbound      = 128              // handlers at once for one connection
	headerTimeout   = 10 * time.Second // for the name of a stream's protocol
	openTimeout     = 10 * time.Second // when the caller's context has no deadline
	maxProtocolName = 255
)

// Stream is one bidirectional flow to or from a peer. One goroutine may read
// while another writes.
type Stream interface {
	link.Stream
	// Secret is a key that the two ends of the connection share and nobody else: for
	// what is keyed beside the connection.
	Secret() secret.Key
	// Remote is where the connection goes.
	Remote() netip.AddrPort
}

// Plain is a Mesh in the words that it shares with gossip.
type Plain struct{ *Mesh }

// Open is Mesh.Open.
func (p Plain) Open(ctx context.Context, peer identity.ID, protocol string) (link.Stream, error) {
	return p.Mesh.Open(ctx, peer, protocol)
}

// Handle is Mesh.Handle.
func (p Plain) Handle(protocol string, handler func(identity.ID, link.Stream)) {
	if handler == nil {
		p.Mesh.Handle(protocol, nil)
		return
	}
	p.Mesh.Handle(protocol, func(id identity.ID, s Stream) { handler(id, s) })
}

// stream stamps the connection's liveness on the way through.
type stream struct {
	link.Stream
	c *conn
}

// Secret implements Stream.
func (s *stream) Secret() secret.Key { return s.c.adm.PSK }

// Remote implements Stream.
func (s *stream) Remote() netip.AddrPort { return s.c.raw.Remote() }

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if n > 0 {
		s.c.heard.Store(int64(s.c.m.now()))
	}
	return n, err
}

// Write implements io.Writer.
func (s *stream) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	if n > 0 {
		s.c.sent.Store(int64(s.c.m.now()))
	}
	return n, err
}

// serve accepts the peer's streams until the connection ends.
func (c *conn) serve() {
	for {
		s, err := c.raw.AcceptStream(context.Background())
		if err != nil {
			c.close(err)
			return
		}
		if c.inbound.Add(1) > maxInbound {
			c.inbound.Add(-1)
			c.refuse(s)
			continue
		}
		c.m.wg.Go(func() {
			defer c.inbound.Add(-1)
			c.dispatch(s)
		})
	}
}

// refuse turns a stream away. It may have ended by itself.
func (c *conn) refuse(s link.Stream) {
	_ = s.Reset()
	c.m.stats.streamsRefused.Add(1)
}

// dispatch reads which protocol a stream is for and hands it over.
func (c *conn) dispatch(raw link.Stream) {
	name, err := readHeader(raw)
	if err != nil {
		_ = raw.Reset() // it is given up, or gone
		return
	}
	c.heard.Store(int64(c.m.now()))
	s := &stream{Stream: raw, c: c}
	if name == "" {
		c.beat.read(c, s)
		return
	}
	c.m.mu.Lock()
	handler := c.m.handlers[name]
	c.m.mu.Unlock()
	if handler == nil || !c.adm.Standing.May(name) {
		c.refuse(raw)
		return
	}
	handler(c.adm.Peer, s)
}

func readHeader(s link.Stream) (string, error) {
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
	s := &stream{Stream: raw, c: c}
	if err := s.writeHeader(ctx, protocol); err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("name protocol: %w", err)
	}
	return s, nil
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
