package datapath

import "time"

// How a way over UDP is watched.
const (
	probeFirst  = 100 * time.Millisecond // until the second probe of a way that has not answered; it doubles
	probeSlow   = 10 * time.Second       // between probes of a way that does not answer, at most
	probeSteady = 10 * time.Second       // between probes of one that does
	probeWait   = time.Second            // for an answer of a way that is up
	probeTries  = 3                      // unanswered in a row before it is down
)

// prober decides whether packets go the direct way: yes once a probe as large as a
// packet can be was answered, no once several were not. It is a value without I/O;
// times are of one monotonic clock.
type prober struct {
	up    bool
	rtt   time.Duration // of the last answer
	nonce uint64        // of the last probe
	sent  time.Duration // when that left
	open  bool          // it was not answered yet
	tries int           // probes in a row without an answer
	next  time.Duration // when the next one is due
}

// restart forgets what was known of the way: its keys or its addresses are new.
func (p *prober) restart(now time.Duration) { *p = prober{nonce: p.nonce, next: now} }

// due reports whether a probe must leave now, and with which nonce. down says that
// the way has just been given up.
func (p *prober) due(now time.Duration) (nonce uint64, probe, down bool) {
	if now < p.next {
		return 0, false, false
	}
	if p.open {
		p.tries++
	}
	if p.up && p.tries >= probeTries {
		p.up, down = false, true
	}
	p.nonce++
	p.sent, p.open = now, true
	if p.up {
		p.next = now + probeWait
	} else {
		p.next = now + min(probeFirst<<min(p.tries, 10), probeSlow)
	}
	return p.nonce, true, down
}

// answered takes an answer. up says that packets go this way from now on.
func (p *prober) answered(nonce uint64, now time.Duration) (up bool) {
	if !p.open || nonce != p.nonce {
		return false
	}
	up = !p.up
	p.up, p.open, p.tries = true, false, 0
	p.rtt = now - p.sent
	p.next = now + probeSteady
	return up
}

// refused says that the network below did not take a packet: the way is down until
// a probe gets through again.
func (p *prober) refused(now time.Duration) {
	p.up, p.open, p.tries = false, false, 0
	p.next = now + probeFirst
}
