package path

import (
	"math"
	"time"
)

// Small is the size in bytes of a probe that asks only whether somebody is there. The
// caller's probes have room for a nonce in it.
const Small = 9

// Floor is the least size in bytes that a path has to take: what is left of the
// datagrams of 1200 bytes that QUIC asks of every path (RFC 9000, section 14).
const Floor = 1168

// When probes are sent.
const (
	probeFirst  = 100 * time.Millisecond  // until the second one of a path that has not answered; it doubles
	probePress  = 500 * time.Millisecond  // between those of a path that is new, or was lost just now, at most
	pressFor    = 30 * time.Second        // how long that is just now
	probeSlow   = 10 * time.Second        // between those of other paths that do not answer, at most
	probeNarrow = 10 * time.Minute        // until a path that is too narrow is tried again, at most
	probePulse  = time.Second             // between small ones of one that is used: do packets still get there?
	probeSteady = 10 * time.Second        // between those of a packet's size: does that still get through?
	probeLarge  = 2500 * time.Millisecond // likewise, of one that is used by large packets
	probePace   = 200 * time.Millisecond  // between those of one that owes an answer, at least
	probeWait   = time.Second             // likewise, at most
	probeAgain  = 10 * time.Minute        // until larger packets are tried again
)

// When a path that is used is asked, since nothing came back: after three round trips,
// within these bounds.
const (
	quietLeast = 400 * time.Millisecond
	quietMost  = 800 * time.Millisecond
)

// When a path is dead: no answer to so many rounds of probes, in so long a time.
const (
	deadTries = 5
	deadAfter = 1100 * time.Millisecond
	deadDeaf  = 3 * time.Second // where packets still come by the path
	// lateBy is how late a round may be. One that is later was not waited for: this
	// process did not run, and what has come meanwhile is not read yet.
	lateBy = 500 * time.Millisecond
)

// When a size is given up: so many smaller probes were answered meanwhile, and each
// of them had followed one of that size.
const (
	searchEnough = 2 // for a size that is tried
	doubtEnough  = 4 // for the one in use: senders remember a smaller one for minutes
)

// Sizes that are tried are multiples of sizeUnit; the search ends when less than
// sizeGap is left of it. In bytes.
const (
	sizeUnit = 4
	sizeGap  = 16
)

// inFlight is how many of the last probes an answer may be to: a path can be slower
// than the pace of probes.
const inFlight = 32

// never is a time that does not come.
const never = time.Duration(math.MaxInt64)

// Prober finds out whether a path is alive and how large packets may be, by probes of
// just these sizes (RFC 8899). It is a value without I/O; times are of one monotonic
// clock that begins above zero, sizes are those of the packet that a probe stands for.
//
// A path is proven once a small probe was answered, and alive once one of the floor or
// more was. The first probe of a proven path is as large as a packet can be, so that
// mostly there is nothing to search. Otherwise the search halves what is left between
// the largest size that was answered and the smallest that was not. A size fails only
// where smaller probes, sent right behind, are answered: what loses those too is loss,
// or the end of the path.
type Prober struct {
	number      uint64 // the upper half of its nonces
	floor, full int    // the least and the most that is tried

	proven  bool
	mtu     int           // what gets through; 0: not even the floor
	over    int           // the least size that does not; full+1 where none is known
	testing int           // the size that is being tried: larger than mtu, or mtu itself; 0: none
	begun   uint64        // the first nonce of that
	smaller int           // answers to smaller probes since
	second  int           // the size of a probe that follows the last at once; 0: none
	after   time.Duration // what next is then
	tried   time.Duration // when a larger size was tried last

	used, large bool          // since the last round
	waiting     time.Duration // Activity.Waiting
	doubting    bool          // it is asked because nothing came back
	owing       bool          // an answer to the last round is due
	tries       int           // rounds in a row without any answer
	since       time.Duration // the first of them
	asked       time.Duration // the last round
	sized       time.Duration // the last one of a packet's size
	lost        time.Duration // when it was made, or ended last
	ended       bool          // it was proven once and is not any more
	fell        time.Duration // when that happened last; 0: never
	narrows     int           // how often it was too narrow in a row
	next        time.Duration

	nonce uint64 // of the last probe; they count up
	sent  [inFlight]sentProbe

	meter
}

// sentProbe is a probe that may still be answered; size 0: not any more.
type sentProbe struct {
	nonce   uint64
	size    int
	counted uint64 // which one of the counted it is; 0: none
	at      time.Duration
}

// newProber makes a prober for packets of up to full bytes, whose nonces have number
// in their upper half.
func newProber(number uint16, full int, now time.Duration) Prober {
	return Prober{number: uint64(number) << 32, floor: min(Floor, full), full: full, over: full + 1, lost: now, next: now}
}

// restart has a path that is not alive asked at once.
func (p *Prober) restart(now time.Duration) {
	if p.mtu == 0 {
		p.owing, p.tries, p.second, p.narrows, p.lost, p.next = false, 0, 0, 0, now, now
	}
}

// check has a path that is alive asked now whether it still is.
func (p *Prober) check(now time.Duration) {
	if p.mtu > 0 && !p.owing && p.second == 0 {
		p.doubting, p.next = true, now
	}
}

// observe takes what happened on the path.
func (p *Prober) observe(a Activity, now time.Duration) {
	p.waiting = a.Waiting
	if a.Heard > p.asked {
		p.heard(now)
	}
	if a.Used && p.mtu > 0 {
		if p.used = true; p.next == never {
			p.next = max(now, p.asked+probePulse)
		}
	}
	if a.Large && !p.large && p.mtu > p.floor {
		if p.large = true; !p.owing {
			p.next = min(p.next, now+p.steady(now))
		}
	}
	if p.mtu == 0 || p.waiting == 0 || now-p.waiting < p.quiet() {
		return
	}
	if !p.owing && now-p.asked >= p.quiet() {
		p.check(now)
	}
	if p.owing && !p.doubting {
		p.doubting, p.next = true, min(p.next, max(now, p.asked+probePace))
	}
}

// quiet is how long nothing comes back before the path is asked.
func (p *Prober) quiet() time.Duration { return min(max(3*p.smooth, quietLeast), quietMost) }

// heard says that an authenticated packet came by the path: it owes nothing for its
// silence any more.
func (p *Prober) heard(now time.Duration) {
	if !p.doubting {
		return
	}
	if p.doubting = false; p.owing && p.testing == 0 {
		p.owing, p.tries, p.second, p.next = false, 0, 0, now+p.steady(now)
	}
}

// due returns the probe that must leave now, and size 0 if there is none. Two may be
// due at once: it is asked until there is none.
func (p *Prober) due(now time.Duration) (nonce uint64, size int) {
	if now < p.next {
		return 0, 0
	}
	if size = p.second; size > 0 {
		p.second, p.next = 0, p.after
		return p.send(size, now), size
	}
	p.recent = 0
	if p.judge(now); p.next > now {
		return 0, 0
	}
	size, second, wait := p.choose(now)
	if wait == never {
		p.next = never
		return 0, 0
	}
	p.next = now + wait
	if second > 0 {
		p.second, p.after, p.next = second, p.next, now
	}
	if !p.owing {
		p.since = now
	}
	if p.used, p.owing, p.asked = false, true, now; size >= p.floor {
		p.large, p.sized = false, now
	}
	return p.send(size, now), size
}

// judge draws the conclusions of what was not answered.
func (p *Prober) judge(now time.Duration) {
	if p.owing {
		p.tries++
		if now-p.next > lateBy {
			p.tries, p.since = 0, now
		}
	}
	after := time.Duration(deadDeaf)
	if p.doubting {
		after = deadAfter
	}
	switch {
	case p.mtu > 0 && p.tries >= deadTries && now-p.since >= max(after, 2*p.patience()):
		p.end(now)
		return
	case p.mtu == 0 && p.proven && p.tries >= deadTries:
		p.proven, p.owing, p.tries = false, false, 0
		p.narrows++
		p.next = now + p.backOff(now)
		return
	case p.mtu == 0:
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

// end says that the path is none any more, until it is proven again.
func (p *Prober) end(now time.Duration) {
	for _, s := range p.sent {
		p.forget(s.nonce)
	}
	p.proven, p.ended, p.fell, p.lost = false, true, now, now
	p.mtu, p.over, p.testing, p.second = 0, p.full+1, 0, 0
	p.owing, p.doubting, p.tries, p.narrows = false, false, 0, 0
}

// choose returns the size of the next probe, of another right behind it, and when to
// look again.
func (p *Prober) choose(now time.Duration) (size, second int, wait time.Duration) {
	switch {
	case !p.proven:
		return Small, 0, p.backOff(now)
	case p.mtu == 0:
		if p.tries > 0 && p.floor < p.full {
			second = p.floor
		}
		return p.full, second, min(probeFirst<<min(p.tries, 10), probeSlow)
	case p.testing > 0:
		if second = p.floor; p.testing > p.mtu {
			second = p.mtu
		}
		if second == p.testing {
			second = 0
		}
		return p.testing, second, p.pace()
	case p.doubting && p.tries == 0:
		return Small, 0, probePace
	case p.owing && !p.doubting: // a small one is lost: no word on the size of packets
		return Small, Small, p.pace()
	case p.owing:
		p.test(p.mtu)
		if p.mtu > p.floor {
			second = p.floor
		}
		return p.mtu, second, p.pace()
	}
	if p.used && now-p.tried >= probeAgain {
		p.over = p.full + 1
	}
	if size = p.larger(); size > 0 {
		p.test(size)
		p.tried = now
		return size, 0, p.patience()
	}
	if !p.used && !p.large {
		return 0, 0, never
	}
	if p.resize(now) > 0 {
		return Small, 0, p.pace()
	}
	p.test(p.mtu)
	return p.mtu, 0, p.pace()
}

// backOff is how long a path that is not proven waits for its next probe.
func (p *Prober) backOff(now time.Duration) time.Duration {
	if p.narrows > 0 {
		return min(probeSlow<<min(p.narrows, 10), probeNarrow)
	}
	most := probeSlow
	if now-p.lost < pressFor {
		most = probePress
	}
	return min(probeFirst<<min(p.tries, 10), most)
}

// pace is how long a path that owes an answer is waited for.
func (p *Prober) pace() time.Duration {
	if p.doubting {
		return probePace
	}
	if p.testing > p.mtu {
		return probeWait
	}
	return min(max(p.patience(), probePace), probeWait)
}

// steady is how long from now a path that answers is not asked again.
func (p *Prober) steady(now time.Duration) time.Duration {
	if p.large {
		return min(p.resize(now), probePulse)
	}
	return probePulse
}

// resize is how long from now no probe of a packet's size is due.
func (p *Prober) resize(now time.Duration) time.Duration {
	every := probeSteady
	if p.large {
		every = probeLarge
	}
	return max(p.sized+every-now, 0)
}

// kick has a path that is not alive asked soon: somebody was heard there.
func (p *Prober) kick(now time.Duration) {
	if p.mtu == 0 && p.next > now && now-p.asked >= probePress {
		p.restart(now)
	}
}

// larger is the size that the search tries next; 0: it is over.
func (p *Prober) larger() int {
	switch {
	case p.mtu < p.full && p.over > p.full:
		return p.full
	case p.over-p.mtu >= sizeGap:
		return (p.mtu + p.over) / 2 / sizeUnit * sizeUnit
	}
	return 0
}

func (p *Prober) test(size int) { p.testing, p.begun, p.smaller = size, p.nonce+1, 0 }

func (p *Prober) send(size int, now time.Duration) (nonce uint64) {
	p.nonce++
	s := sentProbe{nonce: p.nonce, size: size, at: now}
	if p.mtu > 0 && size <= p.mtu {
		s.counted = p.count()
	}
	p.sent[p.nonce%inFlight] = s
	return p.number | p.nonce
}

// forget returns a probe that may be answered, which it then may not any more. Size
// 0: it is none.
func (p *Prober) forget(nonce uint64) sentProbe {
	s := p.sent[nonce%inFlight]
	if s.size == 0 || s.nonce != nonce {
		return sentProbe{}
	}
	p.sent[nonce%inFlight] = sentProbe{}
	p.found(s.counted)
	return s
}

// answered takes an answer that came by the path. It reports whether it is to a probe
// of it.
func (p *Prober) answered(nonce uint64, now time.Duration) bool {
	s := p.forget(nonce ^ p.number)
	if s.size == 0 {
		return false
	}
	p.measure(now - s.at)
	p.owing, p.doubting, p.tries = false, false, 0
	switch {
	case !p.proven:
		p.proven, p.ended, p.mtu, p.over, p.testing, p.second, p.next = true, false, 0, p.full+1, 0, 0, now
	case s.size < p.floor:
		if p.testing == 0 && p.mtu > 0 {
			p.second, p.next = 0, now+p.steady(now)
		}
	case s.size > p.mtu || s.size == p.testing:
		if p.mtu = s.size; p.over <= p.mtu {
			p.over = p.full + 1
		}
		p.testing, p.second, p.narrows, p.next = 0, 0, 0, now
		if p.larger() == 0 {
			p.next = now + p.steady(now)
		}
	case p.testing > 0 && s.nonce > p.begun:
		p.smaller++
		p.next = min(p.next, now+p.patience())
	}
	return true
}

// refused says that the network below does not take a packet of that size: what is
// as large need not be tried. A size of 0 is any: the path is none until it is proven
// again.
func (p *Prober) refused(size int, now time.Duration) {
	if p.mtu == 0 {
		return
	}
	if size <= p.floor {
		p.end(now)
		p.next = now + probeFirst
		return
	}
	for _, s := range p.sent { // it is another path now
		p.forget(s.nonce)
	}
	p.owing, p.tries, p.testing, p.second = false, 0, 0, 0
	p.over, p.next, p.tried = min(p.over, size), now, now
	if p.mtu >= size {
		p.mtu = p.floor
	}
}

// unsent says that there was no room for a probe: nothing follows from that, and
// another is due soon.
func (p *Prober) unsent(nonce uint64, now time.Duration) {
	if p.forget(nonce^p.number).size > 0 {
		p.owing, p.second, p.next = false, 0, now+probeFirst
	}
}

// enough is how many rounds without an answer make a path suspect. Where packets still
// come by it, one that is lost is no news.
func (p *Prober) enough() int {
	if p.doubting {
		return 1
	}
	return 2
}

// state is what the path is good for.
func (p *Prober) state(now time.Duration) State {
	switch {
	case p.mtu > 0 && p.owing && p.tries >= p.enough() && now-p.since >= p.patience():
		return Suspect
	case p.mtu > 0:
		return Alive
	case p.proven || p.narrows > 0 && p.tries < deadTries:
		return Narrow
	case p.ended:
		return Dead
	}
	return Candidate
}
