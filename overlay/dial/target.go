package dial

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// state is how a target is connected.
type state uint8

const (
	absent  state = iota
	overTCP       // where there is QUIC, it is tried now and then
	overQUIC
)

// mode is what a round is about.
type mode uint8

const (
	everything mode = iota
	quicOnly        // a better way to a peer that is connected over TCP
	heardOnly       // a member that has a record was heard on the local network
)

// target is one member, or one host whose resident is asked for.
type target struct {
	number uint64 // order of creation
	id     identity.ID
	host   *host // of a target without ID

	// Why it is kept, and what is known of where it is.
	vouched bool             // there is a record
	record  []netip.AddrPort // of that
	hosts   []*host          // configured ones at which it lives
	heard   []netip.AddrPort // on the local network, the newest first
	last    netip.AddrPort   // where it was reached last
	met     bool             // it was connected once
	rumour  bool             // nothing but hearsay
	source  netip.Addr       // of the rumour
	born    time.Duration
	addrs   []*address // all of these, in the order of their turns

	// How it stands.
	conn    state
	doubted bool          // connected, but it did not answer since the network changed
	away    time.Duration // since when it is absent or doubted
	since   time.Duration // since when it is connected
	strikes int           // connections in a row that did not last
	upgrade time.Duration // the pause before the next try of QUIC
	next    time.Duration // when the next round may begin
	hear    time.Duration // when a round over what was heard may begin; never if nothing was

	// The round, which is open or was the last.
	open    bool
	mode    mode
	round   uint64
	begun   time.Duration // when the round began
	stepped time.Duration // when its last address was begun
	flying  int           // its dials under way
	blocked time.Duration // since when it waits for a slot; never if it does not

	tries      uint64
	lastTried  Dial
	lastResult string

	at    time.Duration // key in the queue
	in    *queue
	index int
}

// address is one place where a target may be.
type address struct {
	addr      netip.AddrPort
	rank      rank
	byHearsay bool // nobody but the local network says so

	round  uint64        // in which it was begun last
	begun  time.Duration // when that was
	tcp    uint64        // the round in which TCP to it was begun
	failed uint64        // the round in which QUIC to it failed
	flying int           // dials of that round under way
	own    time.Duration // until when it counts as this node's own
}

// rank orders the addresses of a target; within one rank they stay as told.
type rank uint8

const (
	rankLast      rank = iota // reached there last
	rankHeardNear             // heard, and on a subnet of this machine
	rankNear
	rankHeard
	rankTold
	rankShared // this machine has the address itself: a bridge of containers, as a rule
)

// host is a configured address.
type host struct {
	name     string
	fixed    bool // addrs need no look-up
	addrs    []netip.AddrPort
	looking  bool
	asked    *target     // who asks for the resident; nil if it was configured with an ID
	resident identity.ID // zero: not known yet
}

// end is when the last reason to keep the target is gone.
func (t *target) end(timing Timing) time.Duration {
	switch {
	case t.host != nil, t.vouched, len(t.hosts) > 0, t.conn != absent:
		return never
	case t.met:
		return t.away + timing.Met
	case t.rumour:
		return t.born + timing.Rumour
	}
	return 0
}

// arrange puts the addresses in the order of their turns, keeping what is known of each.
func (s *Scheduler) arrange(t *target) {
	known := make(map[netip.AddrPort]*address, len(t.addrs))
	for _, a := range t.addrs {
		known[a.addr] = a
	}
	var out []*address
	seen := make(map[netip.AddrPort]bool)
	add := func(addrs []netip.AddrPort, base rank, byHearsay bool) {
		for _, ap := range addrs {
			if !ap.IsValid() || seen[ap] {
				continue
			}
			seen[ap] = true
			a := known[ap]
			if a == nil {
				a = &address{addr: ap}
			}
			a.rank, a.byHearsay = s.rankOf(ap.Addr(), base), byHearsay
			out = append(out, a)
		}
	}
	add([]netip.AddrPort{t.last}, rankLast, false)
	if t.host != nil {
		add(t.host.addrs, rankTold, false)
	}
	for _, h := range t.hosts {
		add(h.addrs, rankTold, false)
	}
	add(t.record, rankTold, false)
	add(t.heard, rankHeard, true)
	for _, a := range out { // heard as well as told: near, and no hearsay
		if a.rank == rankTold && slices.Contains(t.heard, a.addr) {
			a.rank = rankHeard
		}
		if a.rank == rankNear && slices.Contains(t.heard, a.addr) {
			a.rank = rankHeardNear
		}
	}
	slices.SortStableFunc(out, func(a, b *address) int { return cmp.Compare(a.rank, b.rank) })
	t.addrs = out
}

// rankOf is the rank of an address of which base is known.
func (s *Scheduler) rankOf(addr netip.Addr, base rank) rank {
	if base == rankLast {
		return base
	}
	if s.shared[addr] {
		return rankShared
	}
	if p, err := addr.Prefix(subnetBits(addr)); err == nil && s.near[p] {
		if base == rankHeard {
			return rankHeardNear
		}
		return rankNear
	}
	return base
}

// subnetBits is the size that most subnets have.
func subnetBits(addr netip.Addr) int {
	if addr.Is4() {
		return 24
	}
	return 64
}

// backoff is the pause after a round that found nobody, for an absence.
func (s *Scheduler) backoff(absence time.Duration) time.Duration {
	d := min(max(absence/8, s.timing.MinBackoff), s.timing.MaxBackoff)
	return d - time.Duration(s.cfg.Rand()*float64(d)/4)
}

// defers puts a target's first round off where this node, or the one that is to dial
// first, is late.
func (s *Scheduler) defers(t *target, now time.Duration) bool {
	patience := s.late.patience(now)
	begin := max(t.born, t.away)
	if patience == 0 || t.open || t.doubted || s.changed >= begin || t.begun > begin {
		return false
	}
	ready := begin + s.deference(t) + patience
	if s.deference(t) == 0 || ready <= now {
		return false
	}
	t.next = ready
	return true
}

// deference is how long this node leaves it to the other end to dial.
func (s *Scheduler) deference(t *target) time.Duration {
	if t.host != nil || s.cfg.Self.Compare(t.id) < 0 {
		return 0
	}
	return s.timing.Deference
}
