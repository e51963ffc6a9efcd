package datapath

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kairos-io/kairos/overlay/offload"
	"github.com/kairos-io/kairos/overlay/path"
	"github.com/kairos-io/kairos/overlay/session"
)

// peer is a member for as long as it has a connection. Its keys belong to it, not to a
// path or a connection.
type peer struct {
	d       *Datapath
	account *account
	ctx     context.Context
	cancel  context.CancelFunc
	wake    chan struct{} // something has changed that run should look at

	session session.Session
	stream  *streamPath
	pieces  pieces

	chosen atomic.Pointer[endpoint] // where packets go; nil: the stream
	heard  atomic.Pointer[endpoint] // where the last authenticated datagram came from
	armed  atomic.Bool              // run looks often, because packets are sent
	wanted atomic.Bool              // packets were sent since the last handshake

	mu        sync.Mutex // guards what follows
	paths     path.Set
	endpoints map[uint16]*endpoint // by the ID in paths

	shaking bool          // a handshake is under way
	shakeAt time.Duration // when the next may begin
	pause   time.Duration // after one that fails
	doubts  int           // handshakes for want of an answer, since there was one
	turn    time.Duration // when to begin the first handshake without packets
	trouble string        // why there are no keys; "" where that is not known
}

// newPeer makes a peer; stream.run and run make it work.
func newPeer(d *Datapath, a *account) *peer {
	p := &peer{
		d: d, account: a, wake: make(chan struct{}, 1),
		paths: path.NewSet(d.dev.MTU()), endpoints: map[uint16]*endpoint{}, pause: shakePause,
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.stream = newStreamPath(p.ctx, a, d)
	if d.self.Compare(a.id) > 0 {
		p.turn = d.now() + shakePause
	}
	return p
}

// stop gives the peer up: packets that wait are lost. It does not wait for its
// goroutines to end.
func (p *peer) stop() { p.cancel() }

// nudge has run look at once.
func (p *peer) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// agreed says that there was a handshake.
func (p *peer) agreed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted.Store(false)
	p.turn, p.trouble = math.MaxInt64, ""
}

// outlet takes the packets of a run, until it is flushed.
type outlet interface {
	// take takes a packet, or reports false where that is larger than limit.
	take(p offload.Packet) bool
	limit() int
	// broken reports whether the next packet should look for another outlet.
	broken() bool
	flush()
}

// outlet returns where packets to the peer go now. It is for the goroutine in
// Datapath.Run, whose packer k is.
func (p *peer) outlet(k *packer, now time.Duration) outlet {
	keys := p.session.Sealing(now)
	if !p.wanted.Load() {
		if p.wanted.Store(true); keys == nil {
			p.nudge() // they have ended meanwhile
		}
	}
	e := p.chosen.Load()
	if e == nil || keys == nil {
		return p.stream
	}
	if e.out == nil {
		var err error
		if e.out, err = p.d.network.Sender(e.Path); err != nil {
			e.out = nil
			p.refused(e, 0, err)
			return p.stream
		}
	}
	e.use(now)
	if !p.armed.Load() && !p.armed.Swap(true) {
		p.nudge()
	}
	k.begin(e, keys)
	return k
}
