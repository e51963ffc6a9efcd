package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"syscall"
	"time"

	"github.com/kairos-io/kairos/overlay/session"
)

// Control messages travel sealed like packets. Their first byte is no version of IP:
//
//	0x00 nonce (8 bytes) padding   a probe: as large as the packets it stands for
//	0x01 nonce (8 bytes)           its answer
const (
	controlProbe  = 0x00
	controlAnswer = 0x01
	controlSize   = 1 + 8
)

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
		d: d, peer: p, wake: make(chan struct{}, 1), control: control,
		prober:  newProber(d.dev.MTU()),
		scratch: make([]byte, 0, d.dev.MTU()+session.Overhead),
	}
	if d.self.Compare(p.id) > 0 {
		w.turn = d.now() + shakePause
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
			wait := w.pauseAfter()
			err := w.shake()
			w.shaken(err)
			if err != nil && w.ctx.Err() == nil {
				w.d.log.Debug("agreeing on keys with peer failed", "peer", w.peer.id.Short(), "err", err)
				shake, pause = w.d.now()+pause, min(2*pause, shakeSlow)
			} else {
				shake, pause = w.d.now()+wait, shakePause
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
	next, turn := w.prober.next, w.turn
	w.mu.Unlock()
	now := w.d.now()
	if w.session.Sealing(now) == nil {
		next = min(now+session.RekeyAfterTime, turn) // a handshake of the peer wakes run
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

// change lets the prober draw its conclusions from what has happened, and everybody
// else know them.
func (w *direct) change(happened func(p *prober, now time.Duration)) {
	now := w.d.now()
	w.mu.Lock()
	before := w.prober.mtu
	happened(&w.prober, now)
	after := w.prober.mtu
	if after > 0 {
		w.trouble, w.doubts = "", 0
	}
	w.limit.Store(int32(after))
	w.mu.Unlock()
	switch id := w.peer.id.Short(); {
	case before == after:
	case after == 0:
		w.d.log.Info("packets do not go directly to peer any more", "peer", id)
	case before == 0:
		w.d.log.Info("packets go directly to peer", "peer", id, "mtu", after)
	default:
		w.d.log.Debug("the direct way to peer takes packets of another size", "peer", id, "mtu", after, "before", before)
	}
}

// mtu is the largest packet in bytes that gets through; 0: packets do not go this way.
func (w *direct) mtu() int { return int(w.limit.Load()) }

// restart probes the way anew, unless packets go there already.
func (w *direct) restart() {
	w.change(func(p *prober, now time.Duration) {
		if p.mtu == 0 {
			p.restart(now)
		}
	})
	w.nudge()
}

// probe sends the probes that are due.
func (w *direct) probe() {
	for w.session.Sealing(w.d.now()) != nil {
		var nonce uint64
		var size int
		w.change(func(p *prober, now time.Duration) { nonce, size = p.due(now) })
		if size == 0 {
			return
		}
		probe := make([]byte, size)
		probe[0] = controlProbe
		binary.BigEndian.PutUint64(probe[1:], nonce)
		err := w.say(probe)
		if err == nil {
			continue
		}
		w.d.log.Debug("probing the direct way to peer failed", "peer", w.peer.id.Short(), "bytes", size, "err", err)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			w.change(func(p *prober, now time.Duration) { p.unsent(nonce, now) })
		case errors.Is(err, syscall.EMSGSIZE), w.mtu() == 0:
			w.refused(size, err)
		}
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

// use reports whether packets go this way, to somebody who has packets.
func (w *direct) use() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.wanted && w.session.Sealing(w.d.now()) == nil {
		w.nudge() // the keys have ended meanwhile
	}
	w.wanted, w.prober.used = true, true
	return w.prober.mtu > 0
}

// refused says that the network below did not take a packet of size bytes.
func (w *direct) refused(size int, err error) {
	if !errors.Is(err, syscall.EMSGSIZE) {
		size = 0
	}
	w.change(func(p *prober, now time.Duration) { p.refused(size, now) })
	w.mu.Lock()
	if w.prober.mtu == 0 && size <= w.prober.floor {
		w.trouble = "packets are refused: " + reason(err)
	}
	w.mu.Unlock()
	w.d.log.Debug("the direct way to peer does not take a packet", "peer", w.peer.id.Short(), "bytes", size, "err", err)
	w.nudge()
}

// reason is the end of an error: what the kernel said, in short.
func reason(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

// shaken says how a handshake ended.
func (w *direct) shaken(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.trouble = ""; err != nil {
		w.trouble = whyNotAgreed
	}
}

// Why packets take the way they take.
const (
	whyAnswered  = "udp probe answered"
	whyNoUDP     = "no udp connection"
	whyNoKeys    = "no keys agreed yet"
	whyNotAgreed = "agreeing on keys fails"
	whyProbing   = "udp probe not answered yet"
)

var whyUnanswered = fmt.Sprintf("probes of %d bytes are not answered", MinMTU)

// describe completes what is said of the stream form by what is known of the direct
// way; w may be nil. It is asked for every run of packets.
func (w *direct) describe(info PathInfo) PathInfo {
	if w == nil {
		info.Why = whyNoUDP
		return info
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &w.prober
	if p.mtu > 0 {
		info.Kind, info.Up, info.MTU, info.Why = KindDirect, true, p.mtu, whyAnswered
		info.RTT, info.LastRTT, info.Loss = p.smooth, p.rtt, p.loss()
		return info
	}
	switch {
	case w.trouble != "":
		info.Why = w.trouble
	case w.session.Sealing(w.d.now()) == nil:
		info.Why = whyNoKeys
	case p.tries < probeTries:
		info.Why = whyProbing
	default:
		info.Why = whyUnanswered
	}
	return info
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
		waits := w.prober.mtu == 0 && !w.prober.waiting
		w.mu.Unlock()
		if waits {
			w.restart() // the peer has the keys: it is this end's turn
		}
		return
	}
	w.change(func(p *prober, now time.Duration) { p.answered(nonce, now) })
	w.nudge() // more may be due
}
