package datapath

import (
	"math/bits"
	"time"
)

// How a way over UDP is watched.
const (
	probeFirst  = 100 * time.Millisecond // until the second probe of a way that has not answered; it doubles
	probeSlow   = 10 * time.Second       // between probes of a way that does not answer, at most
	probeSteady = 10 * time.Second       // between probes of one that does
	probeWait   = time.Second            // for an answer of a way that is up
	probeAgain  = 10 * time.Minute       // until larger packets are tried again
	probeTries  = 3                      // unanswered in a row before it is down
)

// When a size is given up: so many smaller probes were answered meanwhile, and each
// of them had followed one of that size.
const (
	searchEnough = 2 // for a size that is tried
	doubtEnough  = 5 // for the one in use: senders remember a smaller one for minutes
)

// Sizes that are tried are multiples of sizeUnit; the search ends when less than
// sizeGap is left of it. In bytes.
const (
	sizeUnit = 4
	sizeGap  = 16
)

// inFlight is how many of the last probes an answer may be to: a way can be slower
// than the pace of probes.
const inFlight = 16

// lossOf is how many probes the loss is told of.
const lossOf = 32

// prober decides whether packets go the direct way, and how large they may be, by
// probes of just these sizes (RFC 8899). It is a value without I/O; times are of one
// monotonic clock, sizes are those of the packet that a probe stands for.
//
// A way is up once a probe of the floor or more was answered. The first probe is as
// large as a packet can be, so that mostly there is nothing to search. Otherwise the
// search halves what is left between the largest size that was answered and the
// smallest that was not. A size fails only where smaller probes, sent right behind,
// are answered: what loses those too is loss, or the end of the way. A way that
// nobody uses is left in peace.
type prober struct {
	floor, full int // the least and the most that is tried

	mtu     int           // what gets through; 0: the way is down
	over    int           // the least size that does not; full+1 where none is known
	testing int           // the size that is being tried: larger than mtu, or mtu itself; 0: none
	begun   uint64        // the first nonce of that
	smaller int           // answers to smaller probes since
	second  int           // the size of a probe that follows the last at once; 0: none
	after   time.Duration // what next is then
	tried   time.Duration // when a larger size was tried last

	used    bool // since the last probe
	waiting bool // for an answer that a way that is up would have given
	tries   int  // probes, or pairs of them, in a row without any answer
	next    time.Duration

	nonce uint64 // of the last probe; they count up
	sent  [inFlight]sentProbe

	rtt, smooth, spread time.Duration // the last round trip; their mean and deviation (RFC 6298)

	counted uint64 // probes that the loss is told of: of sizes that get through
	recent  int    // of these, the ones too young to be lost
	lost    uint64 // a bit for each, the last is the lowest
}

// sentProbe is a probe that may still be answered; size 0: not any more.
type sentProbe struct {
	nonce   uint64
	size    int
	counted uint64 // which one of the counted it is; 0: none
	at      time.Duration
}

// newProber makes a prober for packets of up to full bytes.
func newProber(full int) prober {
	return prober{floor: min(MinMTU, full), full: full, over: full + 1}
}

// restart forgets what was known of the way: its keys or its addresses are new.
func (p *prober) restart(now time.Duration) {
	nonce := p.nonce
	*p = newProber(p.full)
	p.nonce, p.next = nonce, now
}

// due returns the probe that must leave now, and size 0 if there is none. Two may be
// due at once: it is asked until there is none.
func (p *prober) due(now time.Duration) (nonce uint64, size int) {
	if now < p.next {
		return 0, 0
	}
	if size = p.second; size > 0 {
		p.second, p.next = 0, p.after
		return p.send(size, now), size
	}
	p.recent = 0
	p.judge()
	size, second, wait := p.choose(now)
	p.next = now + wait
	if size == 0 {
		return 0, 0
	}
	if second > 0 {
		p.second, p.after, p.next = second, p.next, now
	}
	return p.send(size, now), size
}

// judge draws the conclusions of what was not answered.
func (p *prober) judge() {
	if p.waiting {
		p.tries++
	}
	if p.mtu == 0 {
		return
	}
	if p.tries >= probeTries {
		p.mtu, p.over, p.testing = 0, p.full+1, 0
		return
	}
	enough := searchEnough
	if p.testing == p.mtu {
		enough = doubtEnough
	}
	if p.testing > 0 && p.smaller >= enough {
		p.over = p.testing
		if p.testing == p.mtu { // a black hole
			p.mtu = p.floor
		}
		p.testing = 0
	}
}

// choose returns the size of the next probe, of another right behind it, and when to
// look again.
func (p *prober) choose(now time.Duration) (size, second int, wait time.Duration) {
	if p.mtu == 0 {
		if p.tries > 0 && p.floor < p.full {
			second = p.floor
		}
		return p.full, second, min(probeFirst<<min(p.tries, 10), probeSlow)
	}
	if p.testing > 0 {
		if second = p.floor; p.testing > p.mtu {
			second = p.mtu
		}
		if second == p.testing {
			second = 0
		}
		return p.testing, second, probeWait
	}
	if p.used && now-p.tried >= probeAgain {
		p.over = p.full + 1
	}
	if size = p.larger(); size > 0 {
		p.test(size)
		p.tried = now
		return size, 0, p.patience()
	}
	if !p.used {
		return 0, 0, probeSteady
	}
	p.test(p.mtu)
	return p.mtu, 0, probeWait
}

// larger is the size that the search tries next; 0: it is over.
func (p *prober) larger() int {
	switch {
	case p.mtu < p.full && p.over > p.full:
		return p.full
	case p.over-p.mtu >= sizeGap:
		return (p.mtu + p.over) / 2 / sizeUnit * sizeUnit
	}
	return 0
}

func (p *prober) test(size int) { p.testing, p.begun, p.smaller = size, p.nonce+1, 0 }

// patience is how long an answer takes at most, as far as is known (RFC 6298).
func (p *prober) patience() time.Duration {
	if p.smooth == 0 {
		return probeWait
	}
	return min(max(p.smooth+4*p.spread, probeFirst), probeWait)
}

func (p *prober) send(size int, now time.Duration) (nonce uint64) {
	p.nonce++
	s := sentProbe{nonce: p.nonce, size: size, at: now}
	if p.mtu > 0 && size <= p.mtu {
		p.counted++
		p.recent++
		p.lost = p.lost<<1 | 1
		s.counted = p.counted
	}
	p.sent[p.nonce%inFlight] = s
	p.used = false
	p.waiting = p.waiting || size <= p.mtu || p.mtu == 0
	return p.nonce
}

// settle returns a probe that may be answered, which it then may not any more. Size
// 0: it is none.
func (p *prober) settle(nonce uint64) sentProbe {
	s := p.sent[nonce%inFlight]
	if s.size == 0 || s.nonce != nonce {
		return sentProbe{}
	}
	p.sent[nonce%inFlight] = sentProbe{}
	if age := p.counted - s.counted; s.counted > 0 && age < 64 {
		p.lost &^= 1 << age
	}
	return s
}

// answered takes an answer.
func (p *prober) answered(nonce uint64, now time.Duration) {
	s := p.settle(nonce)
	if s.size == 0 {
		return
	}
	p.measure(now - s.at)
	p.waiting, p.tries = false, 0
	if s.size > p.mtu || s.size == p.testing {
		if p.mtu = s.size; p.over <= p.mtu {
			p.over = p.full + 1
		}
		p.testing, p.second, p.next = 0, 0, now
		if p.larger() == 0 {
			p.next = now + probeSteady
		}
	} else if p.testing > 0 && nonce > p.begun {
		p.smaller++
		p.next = min(p.next, now+p.patience())
	}
}

func (p *prober) measure(rtt time.Duration) {
	if p.rtt = rtt; p.smooth == 0 {
		p.smooth, p.spread = rtt, rtt/2
		return
	}
	p.spread += ((rtt - p.smooth).Abs() - p.spread) / 4
	p.smooth += (rtt - p.smooth) / 8
}

// refused says that the network below does not take a packet of that size: what is
// as large need not be tried. A size of 0 is any: the way is down until a probe gets
// through again.
func (p *prober) refused(size int, now time.Duration) {
	if p.mtu == 0 {
		return
	}
	for _, s := range p.sent { // it is another way now
		p.settle(s.nonce)
	}
	p.waiting, p.tries, p.testing, p.second = false, 0, 0, 0
	if size <= p.floor {
		p.mtu, p.over, p.next = 0, p.full+1, now+probeFirst
		return
	}
	p.over, p.next, p.tried = min(p.over, size), now, now
	if p.mtu >= size {
		p.mtu = p.floor
	}
}

// unsent says that there was no room for a probe: nothing follows from that, and
// another is due soon.
func (p *prober) unsent(nonce uint64, now time.Duration) {
	if p.settle(nonce).size > 0 {
		p.waiting, p.second, p.next = false, 0, now+probeFirst
	}
}

// loss is the share of the last lossOf probes without an answer, in percent. Those
// of sizes that do not get through do not count.
func (p *prober) loss() int {
	n := min(int(p.counted)-p.recent, lossOf)
	if n <= 0 {
		return 0
	}
	lost := bits.OnesCount64(p.lost >> p.recent & (1<<lossOf - 1))
	return (100*lost + n/2) / n
}
