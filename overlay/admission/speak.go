package admission

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/kairos-io/kairos/overlay/internal/link"
)

// linger is how long a listener that refused a proof waits for the dialler to leave.
// Closing at once would take the refusal along with the connection.
const linger = time.Second

// exchange is one side's part on a connection. It leaves the stream of a failure as it
// is: the connection's end takes it along and says why, which a reset would hide.
type exchange struct {
	run     func(context.Context, Conn, Side) (Admission, error)
	givenUp link.Reason // said to the other side when the caller's context ends
}

// bounded runs one exchange under the deadline. Running out of time closes the
// connection under it, whatever it is waiting for.
func (g *Gate) bounded(ctx context.Context, c Conn, e exchange) (Admission, error) {
	side, err := g.side(c)
	if err != nil {
		return Admission{}, err
	}
	timed, cancel := context.WithTimeoutCause(ctx, g.cfg.Deadline, ErrTimeout)
	defer cancel()
	stop := context.AfterFunc(timed, func() {
		reason := link.ReasonNone
		if ctx.Err() != nil {
			reason = e.givenUp
		}
		_ = c.Close(reason) // it is given up
	})
	defer stop()
	adm, err := e.run(timed, c, side)
	if !stop() && err == nil {
		err = context.Cause(timed)
	}
	switch {
	case err != nil && timed.Err() != nil && !errors.Is(err, ErrProof):
		return Admission{}, context.Cause(timed)
	case err != nil && timedOut(err): // a stream's own deadline was a moment faster
		return Admission{}, ErrTimeout
	}
	return adm, err
}

// side is what this node brings to one admission.
func (g *Gate) side(c Conn) (Side, error) {
	s := Side{Self: g.cfg.Self, Peer: c.Peer(), Doors: g.cfg.Doors}
	if g.cfg.Terms != nil {
		s.Terms = g.cfg.Terms()
	}
	s.Terms.Run = g.cfg.Run
	if _, err := io.ReadFull(g.cfg.Rand, s.Nonce[:]); err != nil {
		return Side{}, fmt.Errorf("draw nonce: %w", err)
	}
	return s, nil
}

// listen is the accepting end.
func (g *Gate) listen(ctx context.Context, c Conn, side Side) (Admission, error) {
	s, err := c.OpenStream(ctx)
	if err != nil {
		return Admission{}, fmt.Errorf("open admission stream: %w", left(c, err))
	}
	if err := setDeadline(ctx, s); err != nil {
		return Admission{}, fmt.Errorf("set deadline: %w", left(c, err))
	}
	l := NewListener(side)
	start := g.cfg.Now()
	if _, err := s.Write(l.Hello()); err != nil {
		return Admission{}, fmt.Errorf("say hello: %w", left(c, err))
	}
	proof := make([]byte, ProofSize)
	if _, err := io.ReadFull(s, proof); err != nil {
		return Admission{}, fmt.Errorf("read proof: %w", left(c, err))
	}
	rtt := g.cfg.Now().Sub(start)
	answer, out, err := l.Verify(proof)
	if err != nil {
		if errors.Is(err, ErrProof) {
			g.turnAway(s)
		}
		return Admission{}, err
	}
	// From here on the dialler's other connections, which it drops when it has read the
	// answer, cost it nothing.
	g.proven.add(side.Peer)
	if _, err := s.Write(answer); err != nil {
		return Admission{}, fmt.Errorf("answer: %w", left(c, err))
	}
	// The dialler, which has read the answer and closed its end, may have been
	// faster: then this says that the stream is gone.
	_ = s.Close()
	return admission(side, out, rtt), nil
}

// turnAway ends the stream in place of an answer and waits for the dialler to leave. It
// is over at the latest after linger or a proof's worth of bytes; how does not matter.
func (g *Gate) turnAway(s link.Stream) {
	if s.CloseWrite() == nil && s.SetReadDeadline(g.cfg.Now().Add(linger)) == nil {
		_, _ = io.CopyN(io.Discard, s, ProofSize)
	}
}

// dial is the opening end.
func (g *Gate) dial(ctx context.Context, c Conn, side Side) (Admission, error) {
	s, err := c.AcceptStream(ctx)
	if err != nil {
		return Admission{}, fmt.Errorf("accept admission stream: %w", left(c, err))
	}
	if err := setDeadline(ctx, s); err != nil {
		return Admission{}, fmt.Errorf("set deadline: %w", left(c, err))
	}
	hello := make([]byte, HelloSize)
	if _, err := io.ReadFull(s, hello); err != nil {
		return Admission{}, fmt.Errorf("read hello: %w", left(c, err))
	}
	d := NewDialler(side)
	proof, err := d.Prove(hello)
	if err != nil {
		return Admission{}, err
	}
	start := g.cfg.Now()
	if _, err := s.Write(proof); err != nil {
		return Admission{}, fmt.Errorf("send proof: %w", left(c, err))
	}
	answer := make([]byte, AnswerSize)
	switch _, err := io.ReadFull(s, answer); {
	case errors.Is(err, io.EOF): // the stream ended, and the connection did not
		return Admission{}, fmt.Errorf("read answer: %w", ErrRefused)
	case err != nil:
		return Admission{}, fmt.Errorf("read answer: %w", left(c, err))
	}
	rtt := g.cfg.Now().Sub(start)
	out, err := d.Verify(answer)
	if err != nil {
		return Admission{}, err
	}
	g.proven.add(side.Peer)
	_ = s.Close() // may say that the stream is gone, as in listen
	return admission(side, out, rtt), nil
}

func admission(side Side, out Outcome, rtt time.Duration) Admission {
	return Admission{
		Peer: side.Peer, Run: out.Terms.Run, Session: out.Session, RTT: rtt,
		Standing: out.Standing, PSK: out.PSK, Terms: out.Terms,
	}
}

func setDeadline(ctx context.Context, s link.Deadlines) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil
	}
	return s.SetDeadline(deadline)
}

// left says why the other side went away. A connection that knows the reason which the
// other side closed it with has a method for it.
func left(c Conn, err error) error {
	if timedOut(err) {
		return err
	}
	said, ok := c.(interface{ CloseReason() link.Reason })
	if ok && said.CloseReason() == link.ReasonRefused {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return fmt.Errorf("%w: %w", ErrLeft, err)
}

// timedOut knows the muxers' ways of saying so.
func timedOut(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}
