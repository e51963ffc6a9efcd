package underlay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-yamux/v5"
	"github.com/quic-go/quic-go"

	"github.com/kairos-io/kairos/overlay/internal/link"
)

// muxer makes streams of one connection.
type muxer interface {
	open(context.Context) (link.Stream, error)
	accept(context.Context) (link.Stream, error)
	// close ends the connection; it returns when the peer was told, or could not be.
	close(code uint32)
	// ended is how the connection ended; nil while it has not.
	ended() error
}

// codeBase is what a reason is added to to make the error code that travels: the
// transports use the small ones themselves. 0 gives no reason.
const codeBase = 0x6b00

// codeOf is the error code for a reason.
func codeOf(r link.Reason) uint32 {
	if r == link.ReasonNone {
		return 0
	}
	return codeBase + uint32(r)
}

// reasonOf is the reason that a peer's error code names. Those that this version does not
// know are none.
func reasonOf(code uint64) link.Reason {
	if r := code - codeBase; code > codeBase && r <= uint64(link.ReasonClone) {
		return link.Reason(r)
	}
	return link.ReasonNone
}

// reasonIn is the reason that the peer gave, in the error that a connection ended with.
func reasonIn(err error) link.Reason {
	var overQUIC *quic.ApplicationError
	if errors.As(err, &overQUIC) && overQUIC.Remote {
		return reasonOf(uint64(overQUIC.ErrorCode))
	}
	var overTCP *yamux.GoAwayError
	if errors.As(err, &overTCP) && overTCP.Remote {
		return reasonOf(uint64(overTCP.ErrorCode))
	}
	return link.ReasonNone
}

// quicMuxer is the streams of QUIC.
type quicMuxer struct{ conn *quic.Conn }

func (m quicMuxer) open(ctx context.Context) (link.Stream, error) {
	s, err := m.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, m.afterEnd(err)
	}
	return quicStream{s, m}, nil
}

func (m quicMuxer) accept(ctx context.Context) (link.Stream, error) {
	s, err := m.conn.AcceptStream(ctx)
	if err != nil {
		return nil, m.afterEnd(err)
	}
	return quicStream{s, m}, nil
}

func (m quicMuxer) close(code uint32) {
	// There is nothing left to do about a connection that does not close.
	_ = m.conn.CloseWithError(quic.ApplicationErrorCode(code), "")
}

func (m quicMuxer) ended() error { return context.Cause(m.conn.Context()) }

// afterEnd returns err once ended is true, where it says that the connection has ended:
// quic-go tells its streams a moment before.
func (m quicMuxer) afterEnd(err error) error {
	var app *quic.ApplicationError
	if errors.As(err, &app) {
		<-m.conn.Context().Done()
	}
	return err
}

// quicStream gives a stream of QUIC, which is two of one direction each, one end.
type quicStream struct {
	*quic.Stream
	mux quicMuxer
}

// Read implements link.Stream.
func (s quicStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	return n, s.mux.afterEnd(err)
}

// Write implements link.Stream.
func (s quicStream) Write(b []byte) (int, error) {
	n, err := s.Stream.Write(b)
	return n, s.mux.afterEnd(err)
}

// Close implements link.Stream.
func (s quicStream) Close() error {
	s.CancelRead(0)
	return s.Stream.Close()
}

// CloseWrite implements link.Stream.
func (s quicStream) CloseWrite() error { return s.Stream.Close() }

// Reset implements link.Stream.
func (s quicStream) Reset() error {
	s.CancelRead(0)
	s.CancelWrite(0)
	return nil
}

// yamuxMuxer is the streams over TCP and TLS.
type yamuxMuxer struct {
	session *yamux.Session
	secure  *secureConn

	accepting sync.Once
	incoming  chan *yamux.Stream
}

func newYamuxMuxer(session *yamux.Session, secure *secureConn) *yamuxMuxer {
	return &yamuxMuxer{session: session, secure: secure, incoming: make(chan *yamux.Stream)}
}

func (m *yamuxMuxer) open(ctx context.Context) (link.Stream, error) {
	s, err := m.session.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// accept waits with a context, which yamux itself does not.
func (m *yamuxMuxer) accept(ctx context.Context) (link.Stream, error) {
	m.accepting.Do(func() {
		m.secure.letIn()
		go m.acceptAll()
	})
	select {
	case s := <-m.incoming:
		return s, nil
	case <-m.session.CloseChan():
		return nil, m.ended()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// acceptAll ends with the session.
func (m *yamuxMuxer) acceptAll() {
	for {
		s, err := m.session.AcceptStream()
		if err != nil {
			return
		}
		select {
		case m.incoming <- s:
		case <-m.session.CloseChan():
			return
		}
	}
}

func (m *yamuxMuxer) close(code uint32) {
	// yamux waits for a write that is under way.
	timer := time.AfterFunc(2*lingerTime, func() { _ = m.secure.raw.Close() })
	defer timer.Stop()
	if code == 0 {
		_ = m.session.Close()
		return
	}
	// There is nothing left to do about a connection that does not close.
	_ = m.session.CloseWithError(code)
}

func (m *yamuxMuxer) ended() error {
	if !m.session.IsClosed() {
		return nil
	}
	// A closed session opens no stream, and says why.
	_, err := m.session.OpenStream(context.Background())
	if err == nil {
		err = net.ErrClosed
	}
	return err
}

// explain says with an error of a muxer what the peer said.
func explain(what string, err, ended error) error {
	if r := reasonIn(ended); r != link.ReasonNone {
		return fmt.Errorf("%s: the peer closed the connection (%s): %w", what, r, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
