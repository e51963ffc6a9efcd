package datapath

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/route"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Device is the overlay interface; overlay/tun documents the methods.
type Device interface {
	Read(bufs [][]byte, sizes []int) (n int, err error)
	Write(pkts [][]byte) (n int, err error)
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

// Batch sizes in packets.
const (
	deviceBatch = 64
	streamBatch = 128
	// minBuffer is the least that a packet from the device has room for, in bytes.
	minBuffer = 2048
)

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

	// Of the reading goroutine.
	bufs  [][]byte
	sizes []int
	run   run
	icmp  limiter
	reply []byte
	out   [1][]byte
}

// peer is a member with a connection, an inbound stream, or both.
type peer struct {
	id      identity.ID
	link    atomic.Pointer[streamLink] // nil without a connection
	inbound Stream                     // guarded by Datapath.mu
	count   counters
}

// run is packets in a row for one peer: they are sent together.
type run struct {
	id   identity.ID
	peer *peer
	link Link
	mtu  int
	pkts [][]byte
}

// New makes a Datapath that has no routes and no peers yet.
func New(cfg Config) *Datapath {
	d := &Datapath{self: cfg.Self, dev: cfg.Device, opener: cfg.Opener, direct: cfg.Direct, log: cfg.Log, started: time.Now()}
	if d.log == nil {
		d.log = slog.Default()
	}
	d.peers.Store(&map[identity.ID]*peer{})
	d.arrivals.Store(&map[uint32]arrival{})
	size := max(minBuffer, cfg.Device.MTU())
	slab := make([]byte, deviceBatch*size)
	for i := range deviceBatch {
		d.bufs = append(d.bufs, slab[i*size:(i+1)*size:(i+1)*size])
	}
	d.sizes = make([]int, deviceBatch)
	d.run.pkts = make([][]byte, 0, deviceBatch)
	d.reply = make([]byte, 0, maxICMP6)
	return d
}

// Run carries packets until ctx ends, which returns nil, or the device fails.
// It then closes the device, all links and streams, and has no goroutine left.
func (d *Datapath) Run(ctx context.Context) error {
	defer d.shutdown()
	stop := context.AfterFunc(ctx, func() { _ = d.dev.Close() }) // only this wakes Read
	defer stop()
	for {
		n, err := d.dev.Read(d.bufs, d.sizes)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("carry packets: %w", err)
		}
		for i := range n {
			d.forward(d.bufs[i][:d.sizes[i]])
		}
		d.flush()
	}
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

// forward takes one packet from the device as far as the run of its peer.
func (d *Datapath) forward(pkt []byte) {
	src, dst, ok := parse(pkt)
	if !ok {
		d.drops[DropMalformed].Add(1)
		return
	}
	if !carried(dst) {
		d.drops[DropMulticast].Add(1)
		return
	}
	routes := d.routes.Load()
	id, ok := routes.Lookup(dst)
	if !ok || id == d.self {
		d.drops[DropNoRoute].Add(1)
		d.unreachable(pkt)
		return
	}
	if !routes.SourceOK(d.self, src) {
		d.drops[DropLocalSource].Add(1)
		d.unreachable(pkt)
		return
	}
	if d.run.id != id || len(d.run.pkts) == 0 {
		d.flush()
		d.start(id)
	}
	switch {
	case d.run.link == nil:
		if d.run.peer != nil {
			d.run.peer.count.drop(DropNotConnected, 1)
		} else {
			d.drops[DropNotConnected].Add(1)
		}
		d.unreachable(pkt)
	case len(pkt) > d.run.mtu:
		d.run.peer.count.drop(DropTooBig, 1)
		d.answer(appendTooBig(d.reply[:0], pkt, d.run.mtu))
	default:
		d.run.pkts = append(d.run.pkts, pkt)
	}
}

// start begins a run of packets to id.
func (d *Datapath) start(id identity.ID) {
	d.run = run{id: id, peer: (*d.peers.Load())[id], pkts: d.run.pkts[:0]}
	if d.run.peer == nil {
		return
	}
	if link := d.run.peer.link.Load(); link != nil {
		d.run.link, d.run.mtu = link, link.Path().MTU
	}
}

// flush hands the run to its link.
func (d *Datapath) flush() {
	if len(d.run.pkts) == 0 {
		return
	}
	lost := len(d.run.pkts) - d.run.link.Send(d.run.pkts)
	d.run.peer.count.drop(DropQueueFull, lost)
	d.run.pkts = d.run.pkts[:0]
}

// unreachable tells the sender of a packet that its wait is over.
func (d *Datapath) unreachable(pkt []byte) { d.answer(appendUnreachable(d.reply[:0], pkt)) }

// answer hands the device a packet of our own, not too often. A kernel that
// does not take it loses advice, no data.
func (d *Datapath) answer(pkt []byte) {
	if len(pkt) == 0 || !d.icmp.allow(time.Now()) {
		return
	}
	d.out[0] = pkt
	_, _ = d.dev.Write(d.out[:])
}

// HandleStream delivers what the authenticated peer id sends on a stream of
// Protocol, until the stream ends; it then closes it. A newer stream of the
// same peer ends the older one.
func (d *Datapath) HandleStream(id identity.ID, s Stream) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		_ = s.Reset()
		return
	}
	d.running.Add(1)
	defer d.running.Done()
	p := d.ensure(id)
	old := p.inbound
	p.inbound = s
	d.mu.Unlock()
	if old != nil {
		_ = old.Reset()
	}
	if err := d.receive(p, s); err != nil {
		d.log.Debug("data stream from peer ended", "peer", id.Short(), "err", err)
		_ = s.Reset()
	} else {
		_ = s.Close()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.inbound == s {
		p.inbound = nil
		d.prune(p)
	}
}

// receive returns nil when the peer closed the stream after a whole frame.
func (d *Datapath) receive(p *peer, s Stream) error {
	frames := wire.NewFrameReader(s, wire.MaxPacket)
	pkts := make([][]byte, 0, streamBatch)
	for {
		pkt, err := frames.Next()
		for err == nil {
			pkts = append(pkts, pkt)
			if len(pkts) == cap(pkts) || !frames.Buffered() {
				break
			}
			pkt, err = frames.Next()
		}
		if derr := d.deliver(p, pkts); derr != nil {
			return derr
		}
		pkts = pkts[:0]
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrLimit):
			p.count.drop(DropBadFrame, 1)
			d.resets.Add(1)
			return err
		default:
			return err
		}
	}
}

// errBadFrame ends a stream that carries something else than IP packets.
var errBadFrame = errors.New("frame is not one ip packet")

// deliver checks packets that p sent and hands the good ones to the device. It
// reorders pkts. An error means that the peer's stream is of no use any more.
func (d *Datapath) deliver(p *peer, pkts [][]byte) error {
	routes := d.routes.Load()
	good, bytes := pkts[:0], 0
	var bad error
	for _, pkt := range pkts {
		src, dst, ok := parse(pkt)
		if !ok {
			p.count.drop(DropBadFrame, 1)
			d.resets.Add(1)
			bad = errBadFrame
			break
		}
		if !routes.SourceOK(p.id, src) {
			p.count.drop(DropSpoofed, 1)
			continue
		}
		if id, ok := routes.Lookup(dst); !ok || id != d.self {
			p.count.drop(DropNotOurs, 1)
			continue
		}
		good = append(good, pkt)
		bytes += len(pkt)
	}
	if len(good) == 0 {
		return bad
	}
	p.count.received(len(good), bytes)
	n, err := d.dev.Write(good)
	p.count.drop(DropDevice, len(good)-n)
	if errors.Is(err, os.ErrClosed) {
		return err
	}
	return bad
}
