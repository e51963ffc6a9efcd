package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Protocol names the streams that gossip travels on.
const Protocol = "/kairos/gossip/2"

// Implementation constants.
const (
	defaultInterval = time.Minute
	defaultSweep    = 5 * time.Second
	workEvery       = 100 * time.Millisecond // while something waits for its time
)

// ErrLeft is returned by Publish after Leave.
var ErrLeft = errors.New("this member has left the mesh")

// Mesh is what gossip needs of the mesh; *mesh.Mesh is one.
type Mesh interface {
	Open(ctx context.Context, peer identity.ID, protocol string) (link.Stream, error)
	Handle(protocol string, handler func(identity.ID, link.Stream))
	Events() (events <-chan link.Event, cancel func())
	Learn(peer identity.ID, underlay []netip.AddrPort)
	Forget(peer identity.ID)
}

// Config of a Gossip. Key and Mesh are required.
type Config struct {
	Key  identity.Key
	Mesh Mesh
	// Incarnation counts the starts of this node with this key and is saved by
	// the caller before the start: records of a later start win. Without saved
	// state 0 will do; the mesh then tells what to jump over.
	Incarnation uint32
	Run         member.Run    // a random name of this start, which others see
	Limits      member.Limits // of the table
	Interval    time.Duration // of anti-entropy, default 1 min
	Refresh     time.Duration // of the own record, default member.Refresh
	Sweep       time.Duration // of expiry, default 5 s
	Now         func() time.Time
	Log         *slog.Logger
}

// Gossip spreads records. It is safe for concurrent use, and no method waits for
// the mesh but Leave.
type Gossip struct {
	cfg      Config
	log      *slog.Logger
	changes  chan struct{}
	members  atomic.Pointer[member.Snapshot]
	stats    counters
	inbound  inbound
	commands chan func(*owned)
	// idle holds what the goroutine of Run owns while that does not run: who takes
	// it out is the owner until he puts it back.
	idle chan *owned
	tell chan map[identity.ID]*[]netip.AddrPort // what the mesh is to hear, put together; one value at most
}

// owned is what one goroutine at a time may touch.
type owned struct {
	core    *core
	senders map[*peer]*sender
	start   func(*sender, batch) // runs a sender's batch; nil before Run
}

type counters struct {
	sent, received, refused, digests, summaries, bytes, skipped atomic.Uint64
}

// Stats counts since the start.
type Stats struct {
	RecordsSent     uint64 // in deltas
	RecordsReceived uint64 // in deltas, whether new or not
	RecordsRefused  uint64 // of these, not valid, or no room
	DigestsSent     uint64
	SummariesSent   uint64
	BytesSent       uint64 // of all messages
	Skipped         uint64 // messages received of unknown kinds
}

// New returns a gossip that works while Run runs. It starts nothing.
func New(cfg Config) *Gossip {
	if cfg.Interval <= 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.Refresh <= 0 {
		cfg.Refresh = member.Refresh
	}
	if cfg.Sweep <= 0 {
		cfg.Sweep = defaultSweep
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gossip{
		cfg: cfg, log: cfg.Log,
		changes:  make(chan struct{}, 1),
		commands: make(chan func(*owned)),
		idle:     make(chan *owned, 1),
		tell:     make(chan map[identity.ID]*[]netip.AddrPort, 1),
		inbound:  newInbound(),
	}
	g.members.Store(&member.Snapshot{})
	rng := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	g.idle <- &owned{core: newCore(cfg, rng), senders: make(map[*peer]*sender)}
	return g
}

// Members returns the members as they are now. Asking costs nothing: all callers
// share one snapshot, which shows every change at once, and refreshes, which
// change sequence number and time only, within the Sweep.
func (g *Gossip) Members() *member.Snapshot { return g.members.Load() }

// Changes receives a value after the members changed in a way that their Revision
// shows; several changes may share one value. There is one channel, for one reader.
func (g *Gossip) Changes() <-chan struct{} { return g.changes }

// Stats returns the counters.
func (g *Gossip) Stats() Stats {
	return Stats{
		RecordsSent: g.stats.sent.Load(), RecordsReceived: g.stats.received.Load(),
		RecordsRefused: g.stats.refused.Load(), DigestsSent: g.stats.digests.Load(),
		SummariesSent: g.stats.summaries.Load(), BytesSent: g.stats.bytes.Load(), Skipped: g.stats.skipped.Load(),
	}
}

// Publish makes r this node's record and sends it to everybody. ID, Seq and Run
// are filled in. Publishing what is published already does nothing, so that
// it may be called as often as one likes. It may be called before Run.
func (g *Gossip) Publish(r wire.Record) (err error) {
	g.do(func(o *owned) { err = o.core.publish(r, g.cfg.Now()) })
	return err
}

// Leave publishes a goodbye and waits until every connected peer has read it,
// or ctx ends. Nothing can be published after that. Run must still run.
func (g *Gossip) Leave(ctx context.Context) error {
	var readers []chan struct{}
	var err error
	g.do(func(o *owned) { readers, err = o.core.leave(g.cfg.Now()) })
	if err != nil {
		return fmt.Errorf("say goodbye: %w", err)
	}
	for _, read := range readers {
		select {
		case <-read:
		case <-ctx.Done():
			return fmt.Errorf("say goodbye: %w", ctx.Err())
		}
	}
	return nil
}

// do has the owner call f, which must neither block nor call a Gossip, and returns
// when that is done and to be seen.
func (g *Gossip) do(f func(*owned)) {
	done := make(chan struct{})
	select {
	case o := <-g.idle:
		f(o)
		g.apply(o)
		g.idle <- o
	case g.commands <- func(o *owned) { f(o); g.apply(o); close(done) }:
		<-done
	}
}

// apply does what the core has decided. It blocks on nobody.
func (g *Gossip) apply(o *owned) {
	c := o.core
	if c.pending() {
		c.work(g.cfg.Now())
	}
	if old := g.members.Load(); old.Revision() != c.table.Revision() {
		g.members.Store(c.table.Snapshot())
		select {
		case g.changes <- struct{}{}:
		default:
		}
	}
	for p := range c.out.due {
		g.send(o, p)
	}
	clear(c.out.due)
	g.stats.refused.Add(c.out.refused)
	c.out.refused = 0
	if c.out.err != nil {
		g.log.Warn("cannot publish this node's record again", "err", c.out.err)
		c.out.err = nil
	}
	if c.out.tell != nil {
		g.pass(c.out.tell)
		c.out.tell = nil
	}
}

// pass gives what the mesh is to hear to the goroutine that tells it. Only the
// owner puts something in, so that there is room once the old is out.
func (g *Gossip) pass(news map[identity.ID]*[]netip.AddrPort) {
	select {
	case old := <-g.tell:
		for id, where := range news {
			old[id] = where
		}
		news = old
	default:
	}
	g.tell <- news
}

// teller tells the mesh where members are, and who is gone. The mesh may take its
// time, and may call this Gossip meanwhile.
func (g *Gossip) teller(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case news := <-g.tell:
			for id, where := range news {
				if where == nil {
					g.cfg.Mesh.Forget(id)
				} else {
					g.cfg.Mesh.Learn(id, *where)
				}
			}
		}
	}
}

// Run spreads records until ctx ends, which is not an error. It may run once at a
// time.
func (g *Gossip) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.cfg.Mesh.Handle(Protocol, func(peer identity.ID, s link.Stream) { g.read(ctx, peer, s) })
	defer g.cfg.Mesh.Handle(Protocol, nil)
	events, unsubscribe := g.cfg.Mesh.Events()
	defer unsubscribe()

	var running errgroup.Group
	running.Go(func() error { return g.teller(ctx) })
	o := <-g.idle
	var sending sync.WaitGroup
	o.start = func(s *sender, b batch) { sending.Go(func() { g.deliver(s, b) }) }
	g.own(ctx, o, events)
	for _, p := range o.core.peers {
		g.hangUp(o, p)
	}
	for len(o.core.peers) > 0 {
		o.core.down(o.core.peers[0].id, g.cfg.Now())
	}
	g.idle <- o // who still sends wants to say what became of it
	cancel()
	sending.Wait()
	return running.Wait()
}

// own is the owner's loop.
func (g *Gossip) own(ctx context.Context, o *owned, events <-chan link.Event) {
	c := o.core
	sweep := time.NewTicker(g.cfg.Sweep)
	defer sweep.Stop()
	compare := time.NewTimer(g.jittered())
	defer compare.Stop()
	work := time.NewTimer(workEvery)
	defer work.Stop()
	armed := true
	for {
		if !armed && c.pending() {
			work.Reset(workEvery)
			armed = true
		}
		select {
		case <-ctx.Done():
			return
		case f := <-g.commands:
			f(o)
			continue
		case e, ok := <-events:
			if !ok {
				return
			}
			g.event(ctx, o, e)
		case <-sweep.C:
			c.sweep(g.cfg.Now())
			g.apply(o)
			g.members.Store(c.table.Snapshot()) // with what no revision shows
			g.inbound.sweep(g.cfg.Now())
			continue
		case <-compare.C:
			c.compare()
			compare.Reset(g.jittered())
		case <-work.C:
			armed = false
		}
		g.apply(o)
	}
}

// jittered spreads the nodes' comparisons over the interval.
func (g *Gossip) jittered() time.Duration {
	return g.cfg.Interval*3/4 + time.Duration(rand.Int64N(int64(g.cfg.Interval)/2+1))
}

func (g *Gossip) event(ctx context.Context, o *owned, e link.Event) {
	c, now := o.core, g.cfg.Now()
	switch e.Kind {
	case link.PeerUp:
		if p := c.byID[e.Peer]; p != nil {
			g.hangUp(o, p)
		}
		c.up(e.Peer, now)
		g.pickUp(ctx, o, c.byID[e.Peer])
	case link.PathChanged:
		// What was written to a connection that is replaced may be lost without an
		// error: another stream is opened, and a comparison tells what is missing.
		if p := c.byID[e.Peer]; p != nil {
			g.hangUp(o, p)
			c.moved(e.Peer)
			g.pickUp(ctx, o, p)
		}
	case link.PeerDown:
		if p := c.byID[e.Peer]; p != nil {
			g.hangUp(o, p)
			c.down(e.Peer, now)
		}
	}
}
