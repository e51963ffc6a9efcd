package datapath

import (
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"syscall"
	"time"

	"github.com/kairos-io/kairos/overlay/path"
)

// watchEvery is how often the paths of a peer are looked at while packets are sent.
const watchEvery = 400 * time.Millisecond

// run agrees on keys and watches the paths until the peer is stopped.
func (p *peer) run() {
	defer p.forget()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
		}
		timer.Reset(p.tick())
	}
}

// tick does what is due, and returns how long there is nothing to do.
func (p *peer) tick() time.Duration {
	now := p.d.now()
	p.d.dropKeys(p.session.Expire(now))
	again := p.observe(now)
	p.probe(now)
	p.lookElsewhere(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handshake(now)
	next := min(again, p.shakeNext(now))
	if keys, at := p.session.Probing(now); keys != nil {
		next = min(next, p.paths.Next())
	} else {
		next = min(next, at)
	}
	_, expire := p.session.Next()
	next = min(next, expire)
	return max(next-p.d.now(), time.Millisecond)
}

// observe looks at what happened on the paths, and returns when to look again.
func (p *peer) observe(now time.Duration) (again time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	again = math.MaxInt64
	armed := p.armed.Load()
	busy := false
	for id, e := range p.endpoints {
		a := e.activity()
		busy = busy || a.Used
		if at := p.paths.Observe(id, a, now); at > 0 {
			again, busy = min(again, max(at, now)), true
		}
	}
	switch {
	case busy:
		again = min(again, now+watchEvery)
	case armed:
		p.armed.Store(false)
		for _, e := range p.endpoints { // was there one just now that found it armed?
			if e.used.Load() {
				p.armed.Store(true)
				again = now + watchEvery
			}
		}
	}
	return again
}

// probe sends the probes that are due, and draws conclusions.
func (p *peer) probe(now time.Duration) {
	for {
		if keys, _ := p.session.Probing(now); keys == nil {
			return
		}
		p.mu.Lock()
		probe, ok := p.paths.Due(now)
		p.choose(now) // a size that is given up is one for packets at once
		e := p.endpoints[probe.ID]
		if !ok && p.paths.Next() > now { // others may have been asked because of the choice
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		if e != nil {
			p.sendProbe(e, probe)
		}
	}
}

// lookElsewhere tries other paths when those that are known fall silent.
func (p *peer) lookElsewhere(now time.Duration) {
	p.mu.Lock()
	lost := p.paths.Lost()
	p.mu.Unlock()
	if !lost {
		return
	}
	elsewhere := p.d.network.Elsewhere(p.account.id)
	p.mu.Lock()
	p.paths.Try(elsewhere, now)
	p.mu.Unlock()
	p.probe(now)
}

func (p *peer) sendProbe(e *endpoint, probe path.Probe) {
	message := make([]byte, max(probe.Size, controlSize))
	message[0] = controlProbe
	binary.BigEndian.PutUint64(message[1:], probe.Nonce)
	err := p.say(e, message)
	switch {
	case err == nil:
	case errors.Is(err, syscall.EAGAIN):
		p.mu.Lock()
		defer p.mu.Unlock()
		p.paths.Unsent(probe.ID, probe.Nonce, p.d.now())
	default:
		p.refused(e, len(message), err)
	}
}

// forget ends the keys of the peer.
func (p *peer) forget() {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	next := maps.Clone(*p.d.arrivals.Load())
	maps.DeleteFunc(next, func(_ uint32, a arrival) bool { return a.to == p })
	p.d.arrivals.Store(&next)
}
