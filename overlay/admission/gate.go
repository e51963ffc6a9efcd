package admission

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	manet "github.com/multiformats/go-multiaddr/net"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/secret"
)

// DefaultDeadline bounds one admission from the end of the transport's
// handshake to the answer.
const DefaultDeadline = 5 * time.Second

// codeRefused is the libp2p connection error with which a listener closes on
// a dialler that did not prove the token. It tells a member with a mistyped
// token what is wrong, and a stranger nothing that the close does not.
const codeRefused = network.ConnGated

// Errors of Admit beside ErrProof; all may come wrapped.
var (
	ErrTimeout = errors.New("the other side did not prove the token in time")
	ErrLimit   = errors.New("too many admissions at once, or too many failures from this address")
	ErrRefused = errors.New("the other side hung up on our proof: its token is probably another one")
	ErrSelf    = errors.New("the other side is this node itself")
)

// Role says which end of a connection this node is.
type Role bool

// The two roles.
const (
	Accepted Role = false // the connection came in
	Dialled  Role = true  // this node opened it
)

// Conn is what an admission needs of a libp2p transport connection.
type Conn interface {
	RemotePublicKey() crypto.PubKey
	RemoteMultiaddr() ma.Multiaddr
	OpenStream(context.Context) (network.MuxedStream, error)
	AcceptStream() (network.MuxedStream, error)
	CloseWithError(network.ConnErrorCode) error
}

// Config of a Gate. Key, Self and Rand are required.
type Config struct {
	Key      secret.Key
	Self     identity.ID
	Run      Run       // of this process
	Rand     io.Reader // a CSPRNG
	Deadline time.Duration
	Limits   Limits
	Now      func() time.Time // monotonic; default time.Now
}

// Gate admits connections. It is safe for concurrent use.
type Gate struct {
	key      secret.Key
	self     identity.ID
	run      Run
	rand     io.Reader
	deadline time.Duration
	now      func() time.Time
	budget   *budget
	stats    struct {
		admitted, proof, timeout, limit, byPeer atomic.Uint64
	}
}

// Stats counts the outcomes of admissions since the start of the process.
type Stats struct {
	Admitted       uint64 // both sides proved the token
	RefusedProof   uint64 // wrong, replayed or truncated proof
	RefusedTimeout uint64 // nothing came in time
	RefusedLimit   uint64 // closed unread
	RefusedByPeer  uint64 // this node dialled, and its own proof was refused
}

// Admission is the outcome of a successful Admit.
type Admission struct {
	Peer    identity.ID
	Run     Run           // of the peer's process
	Session Session       // the same on both ends
	RTT     time.Duration // one round trip, measured on the way
}

// NewGate returns a gate for one token and one node.
func NewGate(cfg Config) *Gate {
	if cfg.Deadline <= 0 {
		cfg.Deadline = DefaultDeadline
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Gate{
		key: cfg.Key, self: cfg.Self, run: cfg.Run, rand: cfg.Rand,
		deadline: cfg.Deadline, now: cfg.Now, budget: newBudget(cfg.Limits, cfg.Now),
	}
}

// Stats returns the counters.
func (g *Gate) Stats() Stats {
	return Stats{
		Admitted:       g.stats.admitted.Load(),
		RefusedProof:   g.stats.proof.Load(),
		RefusedTimeout: g.stats.timeout.Load(),
		RefusedLimit:   g.stats.limit.Load(),
		RefusedByPeer:  g.stats.byPeer.Load(),
	}
}

// Allow reports whether a connection from addr may start its handshake at
// all; a refusal is counted. It costs an attacker's packet one map look-up.
func (g *Gate) Allow(addr netip.Addr) bool {
	if g.budget.allowed(addr) {
		return true
	}
	g.stats.limit.Add(1)
	return false
}

// Admit runs the admission on a connection on which nothing was opened or
// accepted yet. On success the connection is open and empty; on any error it
// has been closed. It returns within the deadline, or when ctx ends.
func (g *Gate) Admit(ctx context.Context, c Conn, role Role) (Admission, error) {
	peer, err := PeerOf(c)
	if err != nil {
		return Admission{}, g.refuse(c, err)
	}
	if peer == g.self {
		return Admission{}, g.refuse(c, ErrSelf)
	}
	if role == Dialled {
		adm, err := g.bounded(ctx, c, peer, g.dial)
		if err != nil {
			return Admission{}, g.refuse(c, err)
		}
		g.stats.admitted.Add(1)
		return adm, nil
	}
	addr := addrOf(c)
	if !g.budget.begin(addr) {
		return Admission{}, g.refuse(c, ErrLimit)
	}
	adm, err := g.bounded(ctx, c, peer, g.listen)
	// A node that is being closed must not charge those that it leaves.
	g.budget.end(addr, err != nil && ctx.Err() == nil)
	if err != nil {
		return Admission{}, g.refuse(c, err)
	}
	g.stats.admitted.Add(1)
	return adm, nil
}

// refuse closes the connection, counts why and returns the error.
func (g *Gate) refuse(c Conn, err error) error {
	switch {
	case errors.Is(err, ErrProof):
		g.stats.proof.Add(1)
	case errors.Is(err, ErrTimeout):
		g.stats.timeout.Add(1)
	case errors.Is(err, ErrLimit):
		g.stats.limit.Add(1)
	case errors.Is(err, ErrRefused):
		g.stats.byPeer.Add(1)
	}
	// The connection is being given up: how its closing fails does not matter.
	_ = c.CloseWithError(codeRefused)
	return fmt.Errorf("admit: %w", err)
}

// exchange is one side's part. It leaves the stream of a failure as it is: the
// connection's end takes it along and says why, which a reset would hide.
type exchange func(ctx context.Context, c Conn, peer identity.ID, nonce Nonce) (Admission, error)

// bounded runs one exchange under the deadline. Accepting a stream takes no
// context, so running out of time closes the connection under the exchange.
func (g *Gate) bounded(ctx context.Context, c Conn, peer identity.ID, run exchange) (Admission, error) {
	nonce, err := g.nonce()
	if err != nil {
		return Admission{}, err
	}
	timed, cancel := context.WithTimeoutCause(ctx, g.deadline, ErrTimeout)
	defer cancel()
	stop := context.AfterFunc(timed, func() { _ = c.CloseWithError(codeRefused) })
	defer stop()
	adm, err := run(timed, c, peer, nonce)
	if !stop() && err == nil {
		err = context.Cause(timed)
	}
	switch {
	case err != nil && timed.Err() != nil:
		return Admission{}, context.Cause(timed)
	case err != nil && timedOut(err): // a stream's own deadline was a moment faster
		return Admission{}, ErrTimeout
	}
	return adm, err
}

// listen is the accepting end.
func (g *Gate) listen(ctx context.Context, c Conn, peer identity.ID, nonce Nonce) (Admission, error) {
	s, err := c.OpenStream(ctx)
	if err != nil {
		return Admission{}, fmt.Errorf("open admission stream: %w", brokenOff(err))
	}
	l := NewListener(g.key, g.self, peer, nonce)
	start := g.now()
	if err := g.write(ctx, s, l.Hello()); err != nil {
		return Admission{}, fmt.Errorf("say hello: %w", brokenOff(err))
	}
	proof := make([]byte, ProofSize)
	if err := g.read(s, proof); err != nil {
		return Admission{}, fmt.Errorf("read proof: %w", brokenOff(err))
	}
	rtt := g.now().Sub(start)
	answer, err := l.Verify(proof)
	if err != nil {
		return Admission{}, err
	}
	if err := g.write(ctx, s, answer); err != nil {
		return Admission{}, fmt.Errorf("answer: %w", brokenOff(err))
	}
	// The dialler, which has read the answer and closed its end, may have been
	// faster: then this says that the stream is gone.
	_ = s.Close()
	return Admission{Peer: peer, Run: l.PeerRun(), Session: l.Session(), RTT: rtt}, nil
}

// dial is the opening end.
func (g *Gate) dial(ctx context.Context, c Conn, peer identity.ID, nonce Nonce) (Admission, error) {
	s, err := c.AcceptStream()
	if err != nil {
		return Admission{}, fmt.Errorf("accept admission stream: %w", err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := s.SetDeadline(deadline); err != nil {
			return Admission{}, fmt.Errorf("set deadline: %w", err)
		}
	}
	hello := make([]byte, HelloSize)
	if err := g.read(s, hello); err != nil {
		return Admission{}, fmt.Errorf("read hello: %w", err)
	}
	d := NewDialler(g.key, g.self, peer, nonce)
	proof, err := d.Prove(hello)
	if err != nil {
		return Admission{}, err
	}
	start := g.now()
	if err := g.write(ctx, s, proof); err != nil {
		return Admission{}, fmt.Errorf("send proof: %w", hungUp(err))
	}
	answer := make([]byte, AnswerSize)
	if err := g.read(s, answer); err != nil {
		return Admission{}, fmt.Errorf("read answer: %w", hungUp(err))
	}
	rtt := g.now().Sub(start)
	if err := d.Verify(answer); err != nil {
		return Admission{}, err
	}
	_ = s.Close() // may say that the stream is gone, as in listen
	return Admission{Peer: peer, Run: d.PeerRun(), Session: d.Session(), RTT: rtt}, nil
}

// nonce makes a fresh nonce of this run.
func (g *Gate) nonce() (Nonce, error) {
	var n Nonce
	copy(n[:runSize], g.run[:])
	if _, err := io.ReadFull(g.rand, n[runSize:]); err != nil {
		return Nonce{}, fmt.Errorf("draw nonce: %w", err)
	}
	return n, nil
}

func (g *Gate) write(ctx context.Context, s network.MuxedStream, msg []byte) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := s.SetDeadline(deadline); err != nil {
			return err
		}
	}
	_, err := s.Write(msg)
	return err
}

func (g *Gate) read(s network.MuxedStream, into []byte) error {
	_, err := io.ReadFull(s, into)
	return err
}

// brokenOff says why a dialler left in the middle of its proof. A stream that
// ended, was reset or whose connection went is a proof that never came.
func brokenOff(err error) error {
	if timedOut(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrProof, err)
}

// hungUp says why there is no answer to our proof. Over TCP the reason that
// the listener gives is often lost with the reset that follows it; there is
// hardly another one for hanging up at this point.
func hungUp(err error) error {
	if timedOut(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrRefused, err)
}

// timedOut knows the muxers' ways of saying so.
func timedOut(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// PeerOf returns the ID that a connection's handshake authenticated. Only
// Ed25519 keys name nodes.
func PeerOf(c interface{ RemotePublicKey() crypto.PubKey }) (identity.ID, error) {
	key := c.RemotePublicKey()
	if key == nil {
		return identity.ID{}, fmt.Errorf("read peer key: there is none: %w", ErrProof)
	}
	if key.Type() != crypto.Ed25519 {
		return identity.ID{}, fmt.Errorf("read peer key: %s is not Ed25519: %w", key.Type(), ErrProof)
	}
	raw, err := key.Raw()
	if err != nil {
		return identity.ID{}, fmt.Errorf("read peer key: %w", err)
	}
	if len(raw) != len(identity.ID{}) {
		return identity.ID{}, fmt.Errorf("read peer key: %d bytes: %w", len(raw), ErrProof)
	}
	return identity.ID(raw), nil
}

// addrOf returns the address that a connection comes from; the zero address
// (which has a budget of its own) when it has none.
func addrOf(c Conn) netip.Addr {
	ip, err := manet.ToIP(c.RemoteMultiaddr())
	if err != nil {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
