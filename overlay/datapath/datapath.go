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
	"github.com/kairos-io/kairos/overlay/route"
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
	Self   identity.ID
	Device Device
	Opener Opener
	Direct DirectConfig // the zero value: packets take the stream form alone
	Log    *slog.Logger // nil means slog.Default
}

// Datapath carries packets between the device and the peers. Its methods may
// be called from any goroutine; Run once.
type Datapath struct {
	self   identity.ID
	dev    Device
	opener Opener
	direct DirectConfig
	log    *slog.Logger

	started  time.Time
	routes   atomic.Pointer[route.Table]
	peers    atomic.Pointer[map[identity.ID]*peer] // replaced, never changed
	arrivals atomic.Pointer[map[uint32]arrival]    // by session.Index; likewise
	drops    drops
	resets   atomic.Uint64

	mu      sync.Mutex // guards the replacement of peers, and what is below
	closed  bool
	running sync.WaitGroup // links and inbound streams

	receivers receivers
}

// peer is a member with a connection, an inbound stream, or both.
type peer struct {
	id      identity.ID
	link    atomic.Pointer[streamLink] // nil without a connection
	inbound Stream                     // guarded by Datapath.mu
	count   counters
}

// New makes a Datapath that has no routes and no peers yet.
func New(cfg Config) *Datapath {
	d := &Datapath{self: cfg.Self, dev: cfg.Device, opener: cfg.Opener, direct: cfg.Direct, log: cfg.Log, started: time.Now()}
	if d.log == nil {
		d.log = slog.Default()
	}
	d.peers.Store(&map[identity.ID]*peer{})
	d.arrivals.Store(&map[uint32]arrival{})
	return d
}

// Run carries packets until ctx ends, which returns nil, or the device fails.
// It then closes the device, all links and streams, and has no goroutine left.
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
// accepted from now on. Telling it again does nothing.
func (d *Datapath) PeerUp(id identity.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || id == d.self {
		return
	}
	p := d.ensure(id)
	if p.link.Load() != nil {
		return
	}
	link := newStreamLink(id, d.opener, &p.count, d.log)
	if link.direct = d.newDirect(p); link.direct != nil {
		d.running.Go(link.direct.run)
	}
	p.link.Store(link)
	d.running.Go(link.run)
}

// PeerDown tells that the last connection to the peer is gone. An inbound
// stream ends with its connection, not here.
func (d *Datapath) PeerDown(id identity.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := (*d.peers.Load())[id]
	if p == nil {
		return
	}
	if link := p.link.Swap(nil); link != nil {
		_ = link.Close()
	}
	d.prune(p)
}

// Stats returns a snapshot of the counters.
func (d *Datapath) Stats() Stats {
	s := Stats{
		Drops:  d.drops.snapshot(true),
		Resets: d.resets.Load(),
		Peers:  make(map[identity.ID]PeerStats),
	}
	for id, p := range *d.peers.Load() {
		ps := p.count.snapshot()
		if link := p.link.Load(); link != nil {
			ps.Path = link.Path()
		}
		s.Peers[id] = ps
	}
	return s
}

// ensure returns the peer, made if need be. The caller holds mu.
func (d *Datapath) ensure(id identity.ID) *peer {
	old := *d.peers.Load()
	if p := old[id]; p != nil {
		return p
	}
	p := &peer{id: id}
	p.count.total = &d.drops
	next := maps.Clone(old)
	next[id] = p
	d.peers.Store(&next)
	return p
}

// prune forgets a peer that has neither link nor stream. The caller holds mu.
func (d *Datapath) prune(p *peer) {
	if p.link.Load() != nil || p.inbound != nil {
		return
	}
	next := maps.Clone(*d.peers.Load())
	delete(next, p.id)
	d.peers.Store(&next)
}

func (d *Datapath) shutdown() {
	_ = d.dev.Close()
	d.mu.Lock()
	d.closed = true
	for _, p := range *d.peers.Load() {
		if link := p.link.Swap(nil); link != nil {
			_ = link.Close()
		}
		if p.inbound != nil {
			_ = p.inbound.Reset()
		}
	}
	d.mu.Unlock()
	d.running.Wait()
}
