package datapath

import (
	"context"
	"encoding/binary"
	"maps"
	"sync"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/session"
)

// Sender sends datagrams to one peer. Send waits for room and returns how many left;
// Offer does not wait. One goroutine uses it at a time. overlay/socket documents them.
type Sender interface {
	Send(packets [][]byte) (sent int, err error)
	Offer(packet []byte) error
}

// Direct is the network below, as far as it is UDP.
type Direct interface {
	Opener // of SessionProtocol
	// Sender returns a new way to send datagrams where the peer's connection goes.
	// It fails where that is not over UDP.
	Sender(id identity.ID) (Sender, error)
}

// DirectConfig is what the direct way works with.
type DirectConfig struct {
	Direct
	PSK    session.PSK
	Suites session.Suites
}

// Control messages travel sealed like packets. Their first byte is no version of IP:
//
//	0x00 nonce (8 bytes) padding   a probe: as large as a packet can be
//	0x01 nonce (8 bytes)           its answer
const (
	controlProbe  = 0x00
	controlAnswer = 0x01
	controlSize   = 1 + 8
)

// direct is the direct way to one peer, for as long as the peer has a connection.
type direct struct {
	d      *Datapath
	peer   *peer
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{} // something has changed that run should look at

	session session.Session

	mu     sync.Mutex // guards what follows
	prober prober
	wanted bool // there were packets since the last handshake, or there was none

	saying  sync.Mutex // guards what follows
	control Sender
	scratch []byte
}

// arrival is where packets with one index belong.
type arrival struct {
	keys *session.Keys
	to   *direct
}

// newDirect makes the direct way; nil where there is none.
func (d *Datapath) newDirect(p *peer) *direct {
	if d.direct.Direct == nil {
		return nil
	}
	control, err := d.direct.Sender(p.id)
	if err != nil {
		d.log.Debug("no direct way to peer", "peer", p.id.Short(), "err", err)
		return nil
	}
	w := &direct{
		d: d, peer: p, wake: make(chan struct{}, 1), control: control, wanted: d.self.Compare(p.id) < 0,
		scratch: make([]byte, 0, d.dev.MTU()+session.Overhead),
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// now is the clock of sessions and probes.
func (d *Datapath) now() time.Duration { return time.Since(d.started) }

// run agrees on keys and watches the way until it is closed.
func (w *direct) run() {
	defer w.forget()
	pause, shake := shakePause, time.Duration(0) // when the next handshake may begin
	for {
		now := w.d.now()
		w.d.dropKeys(w.session.Expire(now))
		if now >= shake && w.mustShake(now) {
			if err := w.shake(); err != nil && w.ctx.Err() == nil {
				w.d.log.Debug("agreeing on keys with peer failed", "peer", w.peer.id.Short(), "err", err)
				shake, pause = w.d.now()+pause, min(2*pause, shakeSlow)
			} else {
				shake, pause = 0, shakePause
			}
		}
		w.probe()
		timer := time.NewTimer(w.rest(shake))
		select {
		case <-w.ctx.Done():
		case <-w.wake:
		case <-timer.C:
		}
		timer.Stop()
		if w.ctx.Err() != nil {
			return
		}
	}
}

// rest is how long run has nothing to do.
func (w *direct) rest(shake time.Duration) time.Duration {
	w.mu.Lock()
	next := w.prober.next
	w.mu.Unlock()
	now := w.d.now()
	if w.session.Sealing(now) == nil {
		next = now + session.RekeyAfterTime // a handshake of the peer wakes run
	}
	if w.mustShake(now) {
		next = min(next, max(shake, now))
	}
	return max(next-now, time.Millisecond)
}

func (w *direct) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// forget ends the way.
func (w *direct) forget() {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	next := maps.Clone(*w.d.arrivals.Load())
	maps.DeleteFunc(next, func(_ uint32, a arrival) bool { return a.to == w })
	w.d.arrivals.Store(&next)
}

// restart probes the way anew, unless packets go there already.
func (w *direct) restart() {
	w.mu.Lock()
	if !w.prober.up {
		w.prober.restart(w.d.now())
	}
	w.mu.Unlock()
	w.nudge()
}

// probe sends a probe if one is due.
func (w *direct) probe() {
	now := w.d.now()
	if w.session.Sealing(now) == nil {
		return
	}
	w.mu.Lock()
	nonce, send, down := w.prober.due(now)
	w.mu.Unlock()
	if down {
		w.d.log.Info("the direct way to peer does not answer any more", "peer", w.peer.id.Short())
	}
	if !send {
		return
	}
	probe := binary.BigEndian.AppendUint64([]byte{controlProbe}, nonce)
	probe = append(probe, make([]byte, w.d.dev.MTU()-controlSize)...)
	if err := w.say(probe); err != nil {
		w.d.log.Debug("probing the direct way to peer failed", "peer", w.peer.id.Short(), "err", err)
	}
}

// say sends a control message, or loses it where that would take time: it runs on
// the goroutine that reads for everybody.
func (w *direct) say(message []byte) error {
	keys := w.session.Sealing(w.d.now())
	if keys == nil {
		return nil
	}
	w.saying.Lock()
	defer w.saying.Unlock()
	packet, err := keys.Seal(w.scratch[:0], message, 0)
	if err != nil {
		return err
	}
	return w.control.Offer(packet)
}

// isUp reports whether packets go this way.
func (w *direct) isUp() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.prober.up
}

// use is isUp for somebody who has packets.
func (w *direct) use() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.wanted && w.session.Sealing(w.d.now()) == nil {
		w.nudge() // the keys have ended meanwhile
	}
	w.wanted, w.prober.used = true, true
	return w.prober.up
}

// refused says that the network below did not take a packet.
func (w *direct) refused(err error) {
	w.mu.Lock()
	w.prober.refused(w.d.now())
	w.mu.Unlock()
	w.d.log.Info("the direct way to peer does not take packets", "peer", w.peer.id.Short(), "err", err)
	w.nudge()
}

// hear takes a control message.
func (w *direct) hear(message []byte) {
	if len(message) < controlSize {
		return
	}
	nonce := binary.BigEndian.Uint64(message[1:])
	if message[0] == controlProbe {
		if err := w.say(binary.BigEndian.AppendUint64([]byte{controlAnswer}, nonce)); err != nil {
			w.d.log.Debug("answering a probe of peer failed", "peer", w.peer.id.Short(), "err", err)
		}
		w.mu.Lock()
		waits := !w.prober.up && !w.prober.waits()
		w.mu.Unlock()
		if waits {
			w.restart() // the peer has the keys: it is this end's turn
		}
		return
	}
	w.mu.Lock()
	up := w.prober.answered(nonce, w.d.now())
	w.mu.Unlock()
	if up {
		w.d.log.Info("packets go directly to peer", "peer", w.peer.id.Short())
		w.nudge()
	}
}

// mtu is the largest packet that goes this way, in bytes.
func (w *direct) mtu() int { return w.d.dev.MTU() }
