package admission

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/token"
)

// patience bounds what these tests wait for; none of them waits that long.
const patience = 20 * time.Second

var errClosed = errors.New("the connection is closed")

// wire is a connection in memory with one stream: what one end closes, both see.
type wire struct {
	closed chan struct{}
	once   sync.Once
	by     *fakeConn
	reason link.Reason
}

// fakeConn is one end of it, seen by an admission.
type fakeConn struct {
	*wire
	peer    identity.ID
	remote  netip.AddrPort
	in, out net.Conn
	closing error         // what closing the stream says
	tells   bool          // the transport carries reasons
	opened  chan struct{} // somebody asked for the stream
}

// connect returns the two ends of a connection between a and b, which comes from addr.
func connect(a, b identity.ID, addr string) (atA, atB *fakeConn) {
	w := &wire{closed: make(chan struct{})}
	inA, outB := net.Pipe()
	inB, outA := net.Pipe()
	from := netip.AddrPortFrom(netip.MustParseAddr(addr), 4171)
	end := func(peer identity.ID, in, out net.Conn) *fakeConn {
		return &fakeConn{wire: w, peer: peer, remote: from, in: in, out: out, opened: make(chan struct{}, 1)}
	}
	return end(b, inA, outA), end(a, inB, outB)
}

func (c *fakeConn) Peer() identity.ID      { return c.peer }
func (c *fakeConn) Remote() netip.AddrPort { return c.remote }
func (c *fakeConn) OpenStream(context.Context) (link.Stream, error) {
	c.opened <- struct{}{}
	return &fakeStream{c}, nil
}
func (c *fakeConn) AcceptStream(context.Context) (link.Stream, error) { return &fakeStream{c}, nil }

func (c *fakeConn) Close(reason link.Reason) error {
	c.once.Do(func() {
		c.by, c.reason = c, reason
		close(c.closed)
		_, _ = c.in.Close(), c.out.Close()
	})
	return nil
}

// CloseReason is what a transport may know of the other side's close.
func (c *fakeConn) CloseReason() link.Reason {
	select {
	case <-c.closed:
		if c.tells && c.by != c {
			return c.reason
		}
	default:
	}
	return link.ReasonNone
}

// fakeStream is its stream; the end of the connection is not its own end.
type fakeStream struct{ c *fakeConn }

func (s *fakeStream) Read(p []byte) (int, error) {
	n, err := s.c.in.Read(p)
	return n, s.c.explain(err)
}

func (s *fakeStream) Write(p []byte) (int, error) {
	n, err := s.c.out.Write(p)
	return n, s.c.explain(err)
}

func (c *fakeConn) explain(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-c.closed:
		return errClosed
	default:
		return err
	}
}

func (s *fakeStream) Close() error      { return errors.Join(s.c.closing, s.c.out.Close()) }
func (s *fakeStream) CloseWrite() error { return s.c.out.Close() }
func (s *fakeStream) Reset() error      { return s.Close() }
func (s *fakeStream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}
func (s *fakeStream) SetReadDeadline(t time.Time) error  { return s.c.in.SetReadDeadline(t) }
func (s *fakeStream) SetWriteDeadline(t time.Time) error { return s.c.out.SetWriteDeadline(t) }

// node is a gate with a name.
type node struct {
	*Gate
	id identity.ID
}

func newNode(t testing.TB, d token.Door, change func(*Config)) node {
	t.Helper()
	var id identity.ID
	if _, err := rand.Read(id[:]); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Doors: token.Doors{d}, Self: id, Run: Run{1}, Rand: rand.Reader, Deadline: patience}
	if change != nil {
		change(&cfg)
	}
	return node{NewGate(cfg), id}
}

// result is how one end's admission ended.
type result struct {
	adm Admission
	err error
}

// admitted runs both ends and returns what they say.
func admitted(ctx context.Context, listener, dialler node, addr string) (l, d result) {
	atL, atD := connect(listener.id, dialler.id, addr)
	return run(ctx, listener, dialler, atL, atD)
}

func run(ctx context.Context, listener, dialler node, atL, atD *fakeConn) (l, d result) {
	done := make(chan result, 1)
	go func() {
		adm, err := dialler.Admit(ctx, atD, Dialled)
		done <- result{adm, err}
	}()
	l.adm, l.err = listener.Admit(ctx, atL, Accepted)
	return l, <-done
}

// hello lets a listener begin with a peer and reads its first words.
func hello(t testing.TB, listener node, peer identity.ID, addr string) (end *fakeConn, said []byte, ended <-chan error) {
	t.Helper()
	atL, atD := connect(listener.id, peer, addr)
	done := make(chan error, 1)
	go func() {
		_, err := listener.Admit(context.Background(), atL, Accepted)
		done <- err
	}()
	said = make([]byte, HelloSize)
	if _, err := io.ReadFull(&fakeStream{atD}, said); err != nil {
		t.Fatalf("read hello: %v", err)
	}
	return atD, said, done
}

func wait(t testing.TB, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatal("an admission does not end")
		return nil
	}
}
