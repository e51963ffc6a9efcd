package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
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
const Protocol = "/kairos/gossip/1"

// Implementation constants.
const (
	defaultInterval = time.Minute
	defaultSweep    = 5 * time.Second
	fanout          = 3 // peers that a heard change is passed on to
	smallMesh       = 4 // up to this many peers it goes to all
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

// Config of a Gossip. Key, Table and Mesh are required.
type Config struct {
	Key   identity.Key
	Table *member.Table // gossip is its only writer
	Mesh  Mesh
	// Incarnation counts the starts of this node with this key and is saved by
	// the caller before the start: records of a later start win. Without saved
	// state 0 will do; the mesh then tells what to jump over.
	Incarnation uint32
	Interval    time.Duration // of anti-entropy, default 1 min
	Refresh     time.Duration // of the own record, default member.Refresh
	Sweep       time.Duration // of expiry, default 5 s
	Now         func() time.Time
	Log         *slog.Logger
}

// Gossip spreads records. It is safe for concurrent use.
type Gossip struct {
	cfg     Config
	self    identity.ID
	log     *slog.Logger
	changes chan struct{}
	stats   counters

	mu        sync.Mutex
	seq       uint64      // of the last own record
	own       wire.Record // as published last, Seq aside
	published time.Time   // zero before the first Publish
	left      bool
	writers   map[identity.ID]*writer
}

type counters struct {
	sent, received, refused, digests atomic.Uint64
}

// Stats counts since the start.
type Stats struct {
	RecordsSent     uint64 // in deltas
	RecordsReceived uint64 // in deltas, whether new or not
	RecordsRefused  uint64 // of these, not valid, or no room
	DigestsSent     uint64
}

// New returns a gossip that works while Run runs.
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
	return &Gossip{
		cfg: cfg, self: cfg.Key.ID(), log: cfg.Log,
		changes: make(chan struct{}, 1),
		seq:     uint64(cfg.Incarnation) << 32,
		writers: make(map[identity.ID]*writer),
	}
}

// Changes receives a value after the table changed in a way that its Revision
// shows; several changes may share one value. There is one channel, for one reader.
func (g *Gossip) Changes() <-chan struct{} { return g.changes }

// Stats returns the counters.
func (g *Gossip) Stats() Stats {
	return Stats{
		RecordsSent: g.stats.sent.Load(), RecordsReceived: g.stats.received.Load(),
		RecordsRefused: g.stats.refused.Load(), DigestsSent: g.stats.digests.Load(),
	}
}

// Publish makes r this node's record and sends it to everybody. ID and Seq
// are filled in. Publishing what is published already does nothing, so that
// it may be called as often as one likes. It may be called before Run.
func (g *Gossip) Publish(r wire.Record) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left {
		return fmt.Errorf("publish: %w", ErrLeft)
	}
	if !g.published.IsZero() && g.own.Same(r) {
		return nil
	}
	return g.publishLocked(r)
}

func (g *Gossip) publishLocked(r wire.Record) error {
	// What the caller still holds must not change under the comparison above.
	r.Addrs, r.Underlay, r.Prefixes = slices.Clone(r.Addrs), slices.Clone(r.Underlay), slices.Clone(r.Prefixes)
	r.Annotations, r.Credential, r.Unknown = maps.Clone(r.Annotations), slices.Clone(r.Credential), slices.Clone(r.Unknown)
	r.ID, r.Seq = g.self, g.seq+1
	signed, err := wire.Seal(g.cfg.Key, r)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	now := g.cfg.Now()
	change, err := g.cfg.Table.Merge(signed, now)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	g.seq, g.own, g.published = r.Seq, r, now
	g.note(change.Kind)
	for _, w := range g.writers {
		w.push()
	}
	return nil
}

// note tells Changes what a merge did.
func (g *Gossip) note(kind member.Kind) {
	switch kind {
	case member.Added, member.Updated, member.Left:
		select {
		case g.changes <- struct{}{}:
		default:
		}
	}
}

// Leave publishes a goodbye and waits until every connected peer has read it,
// or ctx ends. Nothing can be published after that. Run must still run.
func (g *Gossip) Leave(ctx context.Context) error {
	g.mu.Lock()
	if g.left || g.published.IsZero() {
		g.left = true
		g.mu.Unlock()
		return nil
	}
	goodbye := g.own
	goodbye.Left = true
	err := g.publishLocked(goodbye)
	g.left = true
	writers := slices.Collect(maps.Values(g.writers))
	g.mu.Unlock()
	if err != nil {
		return fmt.Errorf("say goodbye: %w", err)
	}
	// At once: one peer that does not read must not keep it from the others.
	var saying errgroup.Group
	for _, w := range writers {
		saying.Go(func() error { return w.finish(ctx) })
	}
	if err := saying.Wait(); err != nil {
		return fmt.Errorf("say goodbye: %w", err)
	}
	return nil
}

// Run spreads records until ctx ends, which is not an error.
func (g *Gossip) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.cfg.Mesh.Handle(Protocol, func(peer identity.ID, s link.Stream) { g.read(ctx, peer, s) })
	defer g.cfg.Mesh.Handle(Protocol, nil)
	events, unsubscribe := g.cfg.Mesh.Events()
	defer unsubscribe()

	sweep := time.NewTicker(g.cfg.Sweep)
	defer sweep.Stop()
	compare := time.NewTimer(g.jittered())
	defer compare.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-events:
			if !ok {
				return nil
			}
			g.event(ctx, e, &running)
		case <-sweep.C:
			if err := g.sweep(); err != nil {
				g.log.Warn("cannot refresh this node's record", "err", err)
			}
		case <-compare.C:
			g.compare()
			compare.Reset(g.jittered())
		}
	}
}

// jittered spreads the nodes' comparisons over the interval.
func (g *Gossip) jittered() time.Duration {
	return g.cfg.Interval*3/4 + time.Duration(rand.Int64N(int64(g.cfg.Interval)/2+1))
}

func (g *Gossip) event(ctx context.Context, e link.Event, running *sync.WaitGroup) {
	switch e.Kind {
	case link.PeerUp, link.PathChanged:
		// What was written to a connection that is replaced may be lost without an
		// error: a new writer starts over with a digest.
		w := newWriter(ctx, g, e.Peer)
		g.replace(e.Peer, w)
		g.cfg.Table.SetConnected(e.Peer, true, g.cfg.Now())
		running.Go(w.run)
	case link.PeerDown:
		g.replace(e.Peer, nil)
		g.cfg.Table.SetConnected(e.Peer, false, g.cfg.Now())
	}
}

// replace makes w the writer to peer, nil for none, and ends the one before.
func (g *Gossip) replace(peer identity.ID, w *writer) {
	g.mu.Lock()
	old := g.writers[peer]
	if w == nil {
		delete(g.writers, peer)
	} else {
		g.writers[peer] = w
	}
	g.mu.Unlock()
	if old != nil {
		old.cancel()
	}
}

// sweep expires members and renews the own record.
func (g *Gossip) sweep() error {
	now := g.cfg.Now()
	gone := g.cfg.Table.Expire(now, g.connected)
	for _, id := range gone {
		g.cfg.Mesh.Forget(id)
	}
	if len(gone) > 0 {
		g.note(member.Updated)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left || g.published.IsZero() || now.Sub(g.published) < g.cfg.Refresh {
		return nil
	}
	return g.publishLocked(g.own)
}

func (g *Gossip) connected(id identity.ID) bool { return g.writerTo(id) != nil }

func (g *Gossip) writerTo(id identity.ID) *writer {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.writers[id]
}

// compare sends a digest to one random peer.
func (g *Gossip) compare() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.writers) == 0 {
		return
	}
	ids := slices.Collect(maps.Keys(g.writers))
	g.writers[ids[rand.IntN(len(ids))]].compare()
}
