package datapath

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kairos-io/kairos/overlay/path"
	"github.com/kairos-io/kairos/overlay/wire"
)

// The kinds of paths, as PathInfo names them.
const (
	KindDirect = "direct" // sealed datagrams, without a relay
	KindRelay  = "relay"  // likewise, with one
	KindStream = "stream" // frames on a stream
)

// PathInfo describes a path for people.
type PathInfo struct {
	path.Info
	Kind   string        // KindDirect, KindRelay or KindStream
	Up     bool          // packets have left this way, or could at once
	Queued int           // bytes that wait
	Age    time.Duration // since something was heard there; negative: nothing was
}

// endpoint is where datagrams of a peer come from and go to: a path with what sends.
type endpoint struct {
	path.Path
	id   uint16 // in peer.paths
	peer *peer

	mtu     atomic.Int32 // what gets through; 0: not chosen
	waiting atomic.Int64 // Activity.Waiting and so on, in ns
	heard   atomic.Int64
	used    atomic.Bool
	large   atomic.Bool

	out Sender // of the goroutine in Datapath.Run

	saying  sync.Mutex // guards what follows
	control Sender     // nil: it was not needed yet
	scratch []byte
}

// use says that packets are sent.
func (e *endpoint) use(now time.Duration) {
	if e.waiting.Load() == 0 {
		e.waiting.Store(int64(now))
	}
	if !e.used.Load() {
		e.used.Store(true)
	}
}

// hear says that an authenticated packet came.
func (e *endpoint) hear(now time.Duration) {
	if e.waiting.Load() != 0 {
		e.waiting.Store(0)
	}
	e.heard.Store(int64(now))
}

// activity is what happened since it was asked last.
func (e *endpoint) activity() path.Activity {
	return path.Activity{
		Used: e.used.Swap(false), Large: e.large.Swap(false),
		Waiting: time.Duration(e.waiting.Load()), Heard: time.Duration(e.heard.Load()),
	}
}

// hearFrom says that an authenticated datagram came by a path. It is called for every
// batch from a socket.
func (p *peer) hearFrom(from path.Path, now time.Duration) {
	e := p.heard.Load()
	if e == nil || e.Path != from {
		if e = p.hearElsewhere(from, now); e == nil {
			return
		}
	}
	e.hear(now)
}

// hearElsewhere is for a path other than that of the datagram before: it may be a
// candidate. It returns nil where there are too many.
func (p *peer) hearElsewhere(from path.Path, now time.Duration) *endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paths.Heard(from, now)
	p.choose(now)
	p.nudge()
	for _, e := range p.endpoints {
		if e.Path == from {
			p.heard.Store(e)
			return e
		}
	}
	return nil
}

// candidates says which paths the connections of the peer take.
func (p *peer) candidates(paths []path.Path) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.d.now()
	p.paths.Connections(paths, now)
	p.choose(now)
	p.nudge()
}

func (p *peer) networkChanged() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.d.now()
	p.paths.NetworkChanged(now)
	p.choose(now)
	p.nudge()
}

// choose has everybody know what follows from a change of paths. The caller holds mu.
func (p *peer) choose(now time.Duration) {
	if p.d.network == nil {
		return
	}
	moved := p.paths.Choose(now)
	p.equip()
	chosen, id, mtu := p.paths.Chosen()
	e := p.endpoints[id] // nil for the stream
	before := p.chosen.Load()
	if e != nil {
		p.trouble, p.doubts = "", 0
		if old := int(e.mtu.Swap(int32(mtu))); old != mtu && before == e {
			p.d.log.Debug("the path to peer takes packets of another size", "peer", p.account.id.Short(), "mtu", mtu, "before", old)
		}
	}
	if before != e {
		p.chosen.Store(e)
	}
	if moved {
		p.d.log.Info("packets to peer take another path", "peer", p.account.id.Short(), "path", chosen.String(), "why", p.paths.Why(), "mtu", mtu)
	}
}

// equip has an endpoint for every path, and none for those that are none any more. The
// caller holds mu.
func (p *peer) equip() {
	for id, e := range p.endpoints {
		if at, ok := p.paths.Path(id); !ok || at != e.Path {
			delete(p.endpoints, id)
			p.heard.CompareAndSwap(e, nil)
		}
	}
	for id, at := range p.paths.Each {
		if p.endpoints[id] == nil {
			p.endpoints[id] = &endpoint{Path: at, id: id, peer: p}
		}
	}
}

// refused says that the network below did not take a packet of size bytes.
func (p *peer) refused(e *endpoint, size int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.d.log.Debug("a path to peer does not take a packet", "peer", p.account.id.Short(), "path", e.String(), "bytes", size, "err", err)
	if !errors.Is(err, syscall.EMSGSIZE) {
		size = 0
	}
	now := p.d.now()
	p.paths.Refused(e.id, size, reason(err), now)
	p.choose(now)
	p.nudge()
}

// reason is the end of an error: what the kernel said, in short.
func reason(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

// Why there are no keys.
const (
	whyNoKeys    = "no keys agreed yet"
	whyNotAgreed = "agreeing on keys fails"
)

// describe says which paths there are, the chosen one first.
func (p *peer) describe() []PathInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.d.now()
	stream := PathInfo{Kind: KindStream, Up: p.stream.isUp(), Queued: p.stream.queue.queued(), Age: -1}
	stream.MTU = wire.MaxPacket
	if stream.Chosen = p.chosen.Load() == nil; stream.Chosen {
		stream.Why = p.whyStream(now)
	} else {
		stream.Why = "the last resort"
	}
	all := []PathInfo{stream}
	for _, info := range p.paths.Infos(now) {
		for _, e := range p.endpoints {
			if e.Path == info.Path {
				info.Heard = max(info.Heard, time.Duration(e.heard.Load()))
			}
		}
		if info.MTU > 0 {
			info.MTU = max(info.MTU, MinMTU) // see split
		}
		at := PathInfo{Info: info, Kind: KindDirect, Up: info.State >= path.Suspect, Age: -1}
		if !info.Direct() {
			at.Kind = KindRelay
		}
		if info.Heard > 0 {
			at.Age = now - info.Heard
		}
		if all = append(all, at); info.Chosen {
			all[0], all[len(all)-1] = at, all[0]
		}
	}
	return all
}

// whyStream says why packets take the stream.
func (p *peer) whyStream(now time.Duration) string {
	switch {
	case p.d.network == nil, len(p.endpoints) == 0:
	case p.trouble != "":
		return p.trouble
	case p.session.Sealing(now) == nil:
		return whyNoKeys
	}
	return p.paths.Why()
}
