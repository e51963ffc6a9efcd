package genesis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// What ProposeStarted may return, wrapped.
var (
	// ErrAbandoned: the others gave the cluster up; this node must not start it, ever.
	ErrAbandoned = errors.New("the cluster was abandoned before this node started it")
	// ErrNotNamed: the decision names another node to create the cluster.
	ErrNotNamed = errors.New("this node is not named to create the cluster")
)

// Transport sends a message to a node's agent over an authenticated channel and
// returns its answer. It must honour ctx.
type Transport interface {
	Send(ctx context.Context, to identity.ID, msg []byte) ([]byte, error)
}

// Signer signs with this node's identity key.
type Signer interface {
	Sign(ctx context.Context, signContext string, message []byte) ([]byte, error)
}

// Store keeps a State durably: Save returns nil only when it survives a power cut.
// See NewStore for the one on package store.
type Store interface {
	Load() (State, error)
	Save(State) error
}

// Clock is monotonic time. SystemClock is the real one.
type Clock interface {
	// Now returns the time since some fixed moment of this process.
	Now() time.Duration
	After(time.Duration) <-chan time.Time
}

// View is who is in the mesh: nodes (no bridges) of this network_id.
type View interface {
	// Members returns the nodes known now, this one included, in any order.
	Members() []Member
	// Changed returns a channel that is closed, or receives, when Members may
	// have changed since the call.
	Changed() <-chan struct{}
}

// Options is what a Driver is made of.
type Options struct {
	Self      identity.ID
	Network   Network
	Transport Transport
	Signer    Signer
	Store     Store
	Clock     Clock // nil: SystemClock
	View      View
	Rand      io.Reader // for UIDs and jitter; nil: crypto/rand
	Log       *slog.Logger
	Verify    VerifyFunc // nil: identity.Verify
}

// Status is what is known at one moment.
type Status struct {
	Decision *Decision // nil: nothing decided as far as this node knows; not to be modified
	Rival    *Decision // of Conflict; likewise
	Conflict *Conflict
	Epoch    uint64 // epoch in which this node votes, from 1
	Abstains bool   // this node must not vote in Epoch: see Core.Abstain
	Waiting  string // one line why there is no decision yet; "" when there is one
}

// Driver takes part in the agreement for one node: it saves, signs and sends
// what the pure parts say. Its methods are safe for concurrent use.
type Driver struct {
	opt     Options
	core    Core
	attempt chan struct{} // holds one element while an attempt runs

	mu      sync.Mutex // protects what follows
	state   State      // as on disk
	waiting string
	changed chan struct{} // closed when state or waiting changes
	higher  uint64        // highest round of others heard of
}

// NewDriver loads the state and returns a Driver; nothing is sent before Run,
// but HandleMessage votes from now on. A state that cannot be loaded, or that
// is for another network (ErrOtherNetwork), is an error and never an empty one.
func NewDriver(opt Options) (*Driver, error) {
	if opt.Clock == nil {
		opt.Clock = SystemClock()
	}
	if opt.Rand == nil {
		opt.Rand = rand.Reader
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	core := NewCore(opt.Self, opt.Network, opt.Verify)
	state, err := opt.Store.Load()
	if err != nil {
		return nil, fmt.Errorf("load votes: %w", err)
	}
	if state, err = core.Adopt(state); err != nil {
		return nil, err
	}
	return &Driver{opt: opt, core: core, state: state, attempt: make(chan struct{}, 1),
		changed: make(chan struct{}), waiting: "not started yet"}, nil
}

// Status returns what is known now.
func (d *Driver) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Status{Decision: d.state.Decision, Rival: d.state.Rival, Conflict: d.state.Conflict(), Epoch: d.state.epoch(), Abstains: d.state.abstains()}
	if s.Decision == nil {
		s.Waiting = d.waiting
	}
	return s
}

// Proof returns what proves this node's cluster to whoever knows the network:
// see ReadProof. It is nil while there is none.
func (d *Driver) Proof() ([]byte, error) {
	dec := d.snapshot().Decision
	if dec == nil {
		return nil, nil
	}
	return Message{Version: messageVersion, Type: TypeKnow, NetworkID: d.opt.Network.ID, Decision: dec}.Encode()
}

// Changed returns a channel that is closed when Status has changed since this call.
func (d *Driver) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

// Abstain gives up this node's votes in epochs up to e, durably: for a node
// that lost its state and knows from elsewhere that it took part.
func (d *Driver) Abstain(e uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state.Abstain >= e {
		return nil
	}
	return d.save(d.core.Abstain(d.state, e))
}

// Pin makes uid this node's own cluster, durably: see Core.Pin.
func (d *Driver) Pin(uid UID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state.Own == uid {
		return nil
	}
	return d.save(d.core.Pin(d.state, uid))
}

// HandleMessage answers a message from the agent of node from, which the
// caller has authenticated. The answer is given only after what it says is on disk.
func (d *Driver) HandleMessage(ctx context.Context, from identity.ID, msg []byte) ([]byte, error) {
	m, err := DecodeMessage(msg)
	if err != nil {
		return nil, err
	}
	reply, err := d.handle(ctx, from, m)
	if err != nil {
		return nil, err
	}
	return reply.Encode()
}

func (d *Driver) handle(ctx context.Context, from identity.ID, m Message) (Message, error) {
	step, err := d.step(from, m)
	if err != nil {
		return Message{}, err
	}
	if step.Sign != nil {
		sig, err := d.opt.Signer.Sign(ctx, SignContext, step.Sign)
		if err != nil {
			return Message{}, fmt.Errorf("sign vote: %w", err)
		}
		step.Reply.Vote.Signature = sig
	}
	return step.Reply, nil
}

// step is the part of handle that changes the state.
func (d *Driver) step(from identity.ID, m Message) (Step, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	step, err := d.core.Handle(d.state, from, m)
	if err != nil {
		return Step{}, err
	}
	d.higher = max(d.higher, m.Ballot.Round)
	if step.Changed {
		if err := d.save(step.State); err != nil {
			return Step{}, err
		}
	}
	return step, nil
}

// learn takes the knowledge out of an answer.
func (d *Driver) learn(m Message) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	next, changed, err := d.core.Learn(d.state, m)
	if err != nil || !changed {
		return err
	}
	return d.save(next)
}

// save makes next durable and the present state. d.mu is held. On an error the
// old state stays, so that nothing is answered that is not on disk.
func (d *Driver) save(next State) error {
	if err := d.opt.Store.Save(next); err != nil {
		return fmt.Errorf("save votes: %w", err)
	}
	old := d.state
	d.state = next
	if next.Decision != old.Decision || next.Rival != old.Rival || next.epoch() != old.epoch() || next.Abstain != old.Abstain {
		d.report(old, next)
		d.notify()
	}
	return nil
}

func (d *Driver) report(old, next State) {
	log := d.opt.Log.With("epoch", next.epoch())
	if next.Decision != nil && next.Decision != old.Decision {
		log.Info("cluster decided", "cluster", next.Decision.UID(), "peer", next.Decision.Servers()[0], "outcome", string(next.Decision.Result()))
	}
	if c := next.Conflict(); c != nil && next.Rival != old.Rival {
		log.Error("a second cluster claims this network_id; this node stays where it is", "cluster", c.Own, "rival", c.Rival)
	}
	if next.abstains() && !old.abstains() {
		log.Warn("this node may have voted before and forgot it; it votes for nothing any more")
	}
	if next.epoch() > old.epoch() && next.Prior != nil {
		log.Warn("cluster abandoned before it was started", "cluster", next.Prior.Value.UID)
	}
}

// notify wakes whoever waits on Changed. d.mu is held.
func (d *Driver) notify() {
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *Driver) setWaiting(reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting != reason {
		d.waiting = reason
		d.notify()
	}
}

func (d *Driver) snapshot() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state
}

// SystemClock is the monotonic clock of this process.
func SystemClock() Clock { return systemClock{start: time.Now()} }

type systemClock struct{ start time.Time }

func (c systemClock) Now() time.Duration                     { return time.Since(c.start) }
func (c systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }
