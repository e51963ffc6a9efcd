package admission

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/secret"
	"github.com/kairos-io/kairos/overlay/token"
)

// DefaultDeadline bounds one admission from the end of the transport's
// handshake to the answer.
const DefaultDeadline = 5 * time.Second

// Errors of Admit beside ErrProof and ErrTerms; all may come wrapped.
var (
	ErrTimeout = errors.New("the other side did not prove the token in time")
	ErrLimit   = errors.New("too many admissions at once, or too many failures from this address")
	ErrRefused = errors.New("the other side refused our proof: it has another network token")
	ErrLeft    = errors.New("the other side broke the connection off before the admission was done")
	ErrSelf    = errors.New("the other side is this node itself")
)

// Role says which end of a connection this node is.
type Role bool

// The two roles.
const (
	Accepted Role = false // the connection came in
	Dialled  Role = true  // this node opened it
)

// Conn is what an admission needs of a connection.
type Conn interface {
	// Peer is authenticated by the transport's handshake.
	Peer() identity.ID
	Remote() netip.AddrPort
	OpenStream(context.Context) (link.Stream, error)
	AcceptStream(context.Context) (link.Stream, error)
	Close(link.Reason) error
}

// Config of a Gate. Doors, Self and Rand are required.
type Config struct {
	Doors token.Doors // the newest first, at most four; a copy is kept
	Self  identity.ID
	Run   Run       // of this process
	Rand  io.Reader // a CSPRNG
	// Terms, when set, are what this node says beside its run and its join credential.
	// It is called for each admission, from several goroutines.
	Terms func() Terms
	// Known, when set, says who was a member before: those are outside of what strangers
	// may spend. It must be fast and safe for concurrent use.
	Known    func(identity.ID) bool
	Deadline time.Duration
	Limits   Limits
	Now      func() time.Time // monotonic; default time.Now
}

// Gate admits connections. It is safe for concurrent use.
type Gate struct {
	cfg    Config
	budget *budget
	proven proven
	stats  struct {
		admitted, proof, timeout, limit, byPeer, left, terms atomic.Uint64
	}
}

// Stats counts the outcomes of admissions since the start of the process.
type Stats struct {
	Admitted       uint64 // both sides proved the token
	RefusedProof   uint64 // a wrong, forged or replayed proof, whole and in time
	RefusedTimeout uint64 // nothing came in time
	RefusedLimit   uint64 // closed unread
	RefusedByPeer  uint64 // this node dialled, and its own proof was refused
	RefusedTerms   uint64 // the token was proven, and then something unknown was demanded
	Left           uint64 // the other side broke off; most are dials that came in second
}

// Admission is the outcome of a successful Admit.
type Admission struct {
	Peer     identity.ID
	Run      Run           // of the peer's process
	Session  Session       // the same on both ends
	RTT      time.Duration // one round trip, measured on the way
	Standing Standing
	PSK      secret.Key // the same on both ends: for what is keyed beside the connection
	Terms    Terms      // what the peer said of itself
}

// NewGate returns a gate for one network and one node. It panics without a door.
func NewGate(cfg Config) *Gate {
	if len(cfg.Doors) == 0 {
		panic("admission: a gate without a door")
	}
	cfg.Doors = append(token.Doors{}, cfg.Doors...)
	if cfg.Deadline <= 0 {
		cfg.Deadline = DefaultDeadline
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Known == nil {
		cfg.Known = func(identity.ID) bool { return false }
	}
	return &Gate{cfg: cfg, budget: newBudget(cfg.Limits, cfg.Now)}
}

// Stats returns the counters.
func (g *Gate) Stats() Stats {
	return Stats{
		Admitted:       g.stats.admitted.Load(),
		RefusedProof:   g.stats.proof.Load(),
		RefusedTimeout: g.stats.timeout.Load(),
		RefusedLimit:   g.stats.limit.Load(),
		RefusedByPeer:  g.stats.byPeer.Load(),
		RefusedTerms:   g.stats.terms.Load(),
		Left:           g.stats.left.Load(),
	}
}

// Allow reports whether a connection from addr may start its handshake at
// all; a refusal is counted. It costs an attacker's packet a few map look-ups.
func (g *Gate) Allow(addr netip.Addr) bool {
	if g.budget.allowed(addr) {
		return true
	}
	g.stats.limit.Add(1)
	return false
}

// known reports whether a peer is outside of the strangers' budget.
func (g *Gate) known(peer identity.ID) bool { return g.proven.has(peer) || g.cfg.Known(peer) }

// Admit runs the admission on a connection on which nothing was opened or
// accepted yet. On success the connection is open and empty; on any error it
// has been closed. It returns within the deadline, or when ctx ends.
func (g *Gate) Admit(ctx context.Context, c Conn, role Role) (Admission, error) {
	admit := g.accepted
	switch {
	case c.Peer() == g.cfg.Self:
		admit = func(context.Context, Conn) (Admission, error) { return Admission{}, ErrSelf }
	case role == Dialled:
		admit = g.dialled
	}
	adm, err := admit(ctx, c)
	if err != nil {
		return Admission{}, g.refuse(c, err)
	}
	g.stats.admitted.Add(1)
	return adm, nil
}

// dialled admits whom this node called. A dial that is given up has lost a race.
func (g *Gate) dialled(ctx context.Context, c Conn) (Admission, error) {
	return g.bounded(ctx, c, exchange{run: g.dial, givenUp: link.ReasonReplaced})
}

// accepted admits who called this node, within the budgets.
func (g *Gate) accepted(ctx context.Context, c Conn) (adm Admission, err error) {
	s := slot{addr: c.Remote().Addr(), peer: c.Peer(), known: g.known(c.Peer())}
	if !g.budget.begin(s) {
		return Admission{}, ErrLimit
	}
	defer func() { g.budget.end(s, g.cost(ctx, s.peer, err)) }()
	adm, err = g.bounded(ctx, c, exchange{run: g.listen, givenUp: link.ReasonShutdown})
	if err == nil {
		g.budget.welcome(s.addr)
	}
	return adm, err
}

// cost is what an attempt is charged, in failures, when it ends.
func (g *Gate) cost(ctx context.Context, peer identity.ID, err error) float64 {
	switch {
	case err == nil || g.known(peer):
		return 0
	case ctx.Err() != nil: // a node that is being closed must not charge those that it leaves
		return 0
	case errors.Is(err, ErrProof) || errors.Is(err, ErrTimeout):
		return costFailure
	}
	return costLeft
}

// refuse closes the connection, counts why and returns the error.
func (g *Gate) refuse(c Conn, err error) error {
	reason := link.ReasonNone
	switch {
	case errors.Is(err, ErrProof):
		g.stats.proof.Add(1)
		reason = link.ReasonRefused
	case errors.Is(err, ErrTimeout):
		g.stats.timeout.Add(1)
	case errors.Is(err, ErrLimit):
		g.stats.limit.Add(1)
	case errors.Is(err, ErrRefused):
		g.stats.byPeer.Add(1)
	case errors.Is(err, ErrTerms):
		g.stats.terms.Add(1)
	case errors.Is(err, ErrLeft):
		g.stats.left.Add(1)
	}
	// The connection is being given up: how its closing fails does not matter.
	_ = c.Close(reason)
	return fmt.Errorf("admit: %w", err)
}
