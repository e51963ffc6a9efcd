package datapath

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/offload"
	"github.com/kairos-io/kairos/overlay/path"
	"github.com/kairos-io/kairos/overlay/route"
	"github.com/kairos-io/kairos/overlay/session"
)

// Device is the overlay interface; overlay/tun documents the methods.
type Device interface {
	Wait(busy bool) error
	Read(buf []byte) (offload.Packet, error)
	Write(h offload.Header, parts [][]byte) error
	MTU() int
	Close() error
}

// Config is what a Datapath works with.
type Config struct {
	Self    identity.ID
	Device  Device
	Opener  Opener         // of streams of Protocol
	Network Network        // nil: packets take streams alone
	Suites  session.Suites // what this machine does well
	Log     *slog.Logger   // nil means slog.Default
}

// Datapath carries packets between the device and the peers. Its methods may
// be called from any goroutine; Run once.
type Datapath struct {
	self    identity.ID
	dev     Device
	opener  Opener
	network Network
	suites  session.Suites
	log     *slog.Logger

	started  time.Time
	routes   atomic.Pointer[route.Table]
	accounts atomic.Pointer[map[identity.ID]*account] // replaced, never changed
	arrivals atomic.Pointer[map[uint32]arrival]       // by session.Index; likewise
	drops    drops
	resets   atomic.Uint64

	mu      sync.Mutex // guards the replacement of accounts and arrivals, and what is below
	closed  bool
	running sync.WaitGroup // of peers and inbound streams

	receivers receivers
}

// account is a member with a connection, inbound streams, or both.
type account struct {
	id      identity.ID
	peer    atomic.Pointer[peer] // nil without a connection
	inbound []Stream             // as they came; guarded by Datapath.mu
	count   counters
}

// New makes a Datapath that has no routes and no peers yet.
func New(cfg Config) *Datapath {
	d := &Datapath{
		self: cfg.Self, dev: cfg.Device, opener: cfg.Opener, network: cfg.Network, suites: cfg.Suites, log: cfg.Log,
		started: time.Now().Add(-time.Second), // times are above zero
	}
	if d.log == nil {
		d.log = slog.Default()
	}
	d.accounts.Store(&map[identity.ID]*account{})
	d.arrivals.Store(&map[uint32]arrival{})
	return d
}

// now is the clock of sessions and paths.
func (d *Datapath) now() time.Duration { return time.Since(d.started) }

// Run carries packets until ctx ends, which returns nil, or the device fails.
// It then closes the device, all peers and streams, and has no goroutine left.
func (d *Datapath) Run(ctx context.Context) error {
	defer d.shutdown()
	stop := context.AfterFunc(ctx, func() { _ = d.dev.Close() }) // only this wakes Wait
	defer stop()
	if err := newSender(d).loop(); ctx.Err() == nil {
		return fmt.Errorf("carry packets: %w", err)
	}
	return nil
}

// SetRoutes swaps the table that decides for every packet from now on.
func (d *Datapath) SetRoutes(t *route.Table) { d.routes.Store(t) }

// PeerUp tells that there is a connection to the peer: packets to it are
// accepted from now on. Telling it again does nothing. candidates are as in
// Candidates.
func (d *Datapath) PeerUp(id identity.ID, candidates ...path.Path) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || id == d.self {
		return
	}
	a := d.ensure(id)
	if a.peer.Load() != nil {
		return
	}
	p := newPeer(d, a)
	p.candidates(candidates)
	a.peer.Store(p)
	d.running.Go(p.stream.run)
	if d.network != nil {
		d.running.Go(p.run)
	}
}

// Candidates tells which paths the connections of a peer take now. What was proven
// before stays in use for as long as it is alive, and so do the keys.
func (d *Datapath) Candidates(id identity.ID, candidates ...path.Path) {
	if p := d.peer(id); p != nil {
		p.candidates(candidates)
	}
}

// ConnectionChanged tells that streams to the peer take another connection now: the
// stream of packets moves there.
func (d *Datapath) ConnectionChanged(id identity.ID) {
	if p := d.peer(id); p != nil {
		p.stream.move()
	}
}

// NetworkChanged tells that this machine's addresses or routes have changed, or that it
// woke up: every path is asked whether it is still there, and the kernel for others.
func (d *Datapath) NetworkChanged() {
	for _, a := range *d.accounts.Load() {
		if p := a.peer.Load(); p != nil {
			p.networkChanged()
		}
	}
}

// PeerDown tells that the last connection to the peer is gone, and with it its keys. An
// inbound stream ends with its connection, not here.
func (d *Datapath) PeerDown(id identity.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := (*d.accounts.Load())[id]
	if a == nil {
		return
	}
	if p := a.peer.Swap(nil); p != nil {
		p.stop()
	}
	d.prune(a)
}

// Stats returns a snapshot of the counters.
func (d *Datapath) Stats() Stats {
	s := Stats{
		Drops:  d.drops.snapshot(true),
		Resets: d.resets.Load(),
		Peers:  make(map[identity.ID]PeerStats),
	}
	for id, a := range *d.accounts.Load() {
		ps := a.count.snapshot()
		if p := a.peer.Load(); p != nil {
			ps.Paths = p.describe()
			ps.Path = ps.Paths[0]
		}
		s.Peers[id] = ps
	}
	return s
}

// peer returns the peer with that ID; nil without a connection.
func (d *Datapath) peer(id identity.ID) *peer {
	if a := (*d.accounts.Load())[id]; a != nil {
		return a.peer.Load()
	}
	return nil
}

// ensure returns the account of a member, made if need be. The caller holds mu.
func (d *Datapath) ensure(id identity.ID) *account {
	old := *d.accounts.Load()
	if a := old[id]; a != nil {
		return a
	}
	a := &account{id: id}
	a.count.total = &d.drops
	next := maps.Clone(old)
	next[id] = a
	d.accounts.Store(&next)
	return a
}

// prune forgets a member that has neither connection nor stream. The caller holds mu.
func (d *Datapath) prune(a *account) {
	if a.peer.Load() != nil || len(a.inbound) > 0 {
		return
	}
	next := maps.Clone(*d.accounts.Load())
	delete(next, a.id)
	d.accounts.Store(&next)
}

func (d *Datapath) shutdown() {
	_ = d.dev.Close()
	d.mu.Lock()
	d.closed = true
	for _, a := range *d.accounts.Load() {
		if p := a.peer.Swap(nil); p != nil {
			p.stop()
		}
		for _, s := range a.inbound {
			_ = s.Reset()
		}
	}
	d.mu.Unlock()
	d.running.Wait()
}
