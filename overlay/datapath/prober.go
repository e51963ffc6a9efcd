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

// inFlight is how many of the last probes an answer may be to: a way can be slower
// than the pace of probes.
const inFlight = 4

// prober decides whether packets go the direct way: yes once a probe as large as a
// packet can be was answered, no once several were not. A way that nobody uses is
// left in peace. It is a value without I/O; times are of one monotonic clock.
type prober struct {
	up     bool
	used   bool                    // since the last probe
	rtt    time.Duration           // of the last answer
	nonce  uint64                  // of the last probe; they count up
	answer uint64                  // the highest nonce that was answered, or is past hope
	sent   [inFlight]time.Duration // when the last probes left, by nonce
	tries  int                     // probes in a row without an answer
	next   time.Duration           // when to look again
}

// restart forgets what was known of the way: its keys or its addresses are new.
func (p *prober) restart(now time.Duration) { *p = prober{nonce: p.nonce, answer: p.nonce, next: now} }

// waits reports whether an answer is outstanding.
func (p *prober) waits() bool { return p.answer < p.nonce }

// due reports whether a probe must leave now, and with which nonce. down says that
// the way has just been given up.
func (p *prober) due(now time.Duration) (nonce uint64, probe, down bool) {
	if now < p.next {
		return 0, false, false
	}
	if p.waits() {
		p.tries++
	} else if p.up && !p.used {
		p.next = now + probeSteady
		return 0, false, false
	}
	if p.up && p.tries >= probeTries {
		p.up, down = false, true
	}
	p.nonce++
	p.sent[p.nonce%inFlight], p.used = now, false
	if p.up {
		p.next = now + probeWait
	} else {
		p.next = now + min(probeFirst<<min(p.tries, 10), probeSlow)
	}
	return p.nonce, true, down
}

// answered takes an answer. up says that packets go this way from now on.
func (p *prober) answered(nonce uint64, now time.Duration) (up bool) {
	if nonce <= p.answer || nonce > p.nonce || p.nonce-nonce >= inFlight {
		return false
	}
	up = !p.up
	p.up, p.tries, p.answer = true, 0, p.nonce
	p.rtt = now - p.sent[nonce%inFlight]
	p.next = now + probeSteady
	return up
}

// refused says that the network below did not take a packet: the way is down until
// a probe gets through again.
func (p *prober) refused(now time.Duration) {
	p.up, p.tries, p.answer = false, 0, p.nonce
	p.next = now + probeFirst
}
