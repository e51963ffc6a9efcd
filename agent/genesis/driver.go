package genesis

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
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
	// Changed returns a channel that is closed or receives when Members may have changed.
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
	Conflict *Conflict
	Epoch    uint64 // epoch in which this node votes, from 1
	Waiting  string // one line why there is no decision yet; "" when there is one
}

// Driver runs the agreement for one node.
type Driver struct{ opt Options }

// NewDriver loads the state and returns a Driver; nothing is sent before Run.
func NewDriver(opt Options) (*Driver, error) { return &Driver{opt: opt}, nil }

// Run takes part in the agreement until ctx ends (nil) or the state can no longer be saved.
func (d *Driver) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// HandleMessage answers a message from the agent of node from, which the
// caller has authenticated. It is safe for concurrent use.
func (d *Driver) HandleMessage(ctx context.Context, from identity.ID, msg []byte) ([]byte, error) {
	return nil, nil
}

// ProposeStarted wins Outcome=started for the current decision, which must
// name this node first; it blocks until the outcome is decided or ctx ends.
// ErrAbandoned means that it was lost for good. To be called right before the
// first start of the server, with nothing slow in between.
func (d *Driver) ProposeStarted(ctx context.Context) error { return nil }

// Status returns what is known now.
func (d *Driver) Status() Status { return Status{} }

// Changed returns a channel that is closed when Status has changed since this call.
func (d *Driver) Changed() <-chan struct{} { return nil }
