package dial

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Scheduler decides about dials. Its methods take the time since some fixed
// moment, which must not go back, and are not safe for concurrent use. After
// any of them, Next may have something to do.
type Scheduler struct {
	cfg    Config
	timing Timing
	limits Limits

	targets map[identity.ID]*target
	hosts   map[string]*host
	all     []*target // in the order of creation
	rumours []*target // those of all that are rumours, the oldest first
	created uint64

	waiting queue        // by the time of the next step
	blocked [pools]queue // those that wait for a slot, by urgency
	served  uint64       // turns of members so far

	dials   map[uint64]*flight
	dialled uint64
	used    [pools]int // slots in use
	slots   int        // there are for members now
	late    lateness
	epoch   uint64 // counts changes of the network

	local   []netip.Addr          // addresses of this machine
	shared  map[netip.Addr]bool   // the same
	near    map[netip.Prefix]bool // its subnets
	changed time.Duration         // the last change of the network that was acted on
	calm    time.Duration         // how long after that the next one is
	change  time.Duration         // when one is to be acted on; never
	out     Steps
}

// flight is a dial under way.
type flight struct {
	Dial
	t     *target
	a     *address
	round uint64
	epoch uint64
	pool  pool
}

// pool is what a dial takes its slot from.
type pool int

const (
	ofFresh pool = iota // members that were there a moment ago
	ofOthers
	ofStrangers
	pools = 3
)

// New returns a scheduler that knows nobody.
func New(cfg Config) *Scheduler {
	return &Scheduler{
		cfg: cfg, timing: cfg.Timing.withDefaults(), limits: cfg.Limits.withDefaults(),
		targets: make(map[identity.ID]*target),
		hosts:   make(map[string]*host),
		dials:   make(map[uint64]*flight),
		changed: -time.Hour, change: never,
	}
}

// Learn tells where a member's record says that it is, in the order in which it
// wants to be tried. It is dialled until Forget.
func (s *Scheduler) Learn(now time.Duration, id identity.ID, addrs []netip.AddrPort) {
	t := s.vouchedTarget(now, id)
	if t == nil {
		return
	}
	addrs = slices.Clone(addrs[:min(len(addrs), s.limits.Addrs)])
	fresh := !t.vouched
	t.vouched = true
	if !fresh && slices.Equal(t.record, addrs) {
		return
	}
	t.record = addrs
	s.arrange(t)
	s.news(t, now)
}

// Forget takes a member's record back: it left, or expired. A member that is
// connected stays so; it is not dialled after that unless it is heard of again.
func (s *Scheduler) Forget(now time.Duration, id identity.ID) {
	t := s.targets[id]
	if t == nil {
		return
	}
	t.vouched, t.record, t.met = false, nil, false
	s.arrange(t)
	s.look(t, now)
}

// Connected tells that a peer's best connection goes over a transport now. at is
// where it was dialled; the zero address if the connection came in from a place
// that cannot be dialled.
func (s *Scheduler) Connected(now time.Duration, id identity.ID, over Transport, at netip.AddrPort) {
	t := s.vouchedTarget(now, id)
	if t == nil {
		return
	}
	before := t.conn
	if before == absent {
		t.since = now
	}
	t.conn, t.met, t.doubted = overQUIC, true, false
	if over == TCP {
		t.conn = overTCP
	}
	if at.IsValid() && at != t.last {
		t.last = at
		s.arrange(t)
	}
	if t.conn == overQUIC || !s.cfg.QUIC {
		t.open, t.upgrade, t.next = false, 0, never
		s.stop(t, func(f *flight) bool { return true })
		s.look(t, now)
		return
	}
	if before != overTCP {
		t.upgrade = s.timing.Upgrade
		t.next = now + t.upgrade
	}
	if before == overQUIC {
		t.next = now // what is left is the worse way: look for a better one
	}
	if t.open {
		t.mode = quicOnly
	}
	s.stop(t, func(f *flight) bool { return f.Transport == TCP })
	s.look(t, now)
}

// Disconnected tells that a peer's last connection ended.
func (s *Scheduler) Disconnected(now time.Duration, id identity.ID) {
	t := s.targets[id]
	if t == nil || t.conn == absent {
		return
	}
	if now-t.since < s.timing.Stable {
		t.strikes++
	} else {
		t.strikes = 0
	}
	t.conn, t.doubted, t.away, t.open = absent, false, now, false
	t.next = now + s.deference(t)
	if t.strikes > 0 {
		t.next = now + s.penalty(t)
	}
	for _, h := range t.hosts {
		if h.asked != nil {
			h.asked.away, h.asked.next = now, now+s.timing.Resident
			s.look(h.asked, now)
		}
	}
	s.look(t, now)
}

// clonePenalty is the number of strikes that a clone counts for at least: it
// will not go away by itself.
const clonePenalty = 5

// Refused tells that a peer hung up because of a clone: it is left alone for a
// growing time.
func (s *Scheduler) Refused(now time.Duration, id identity.ID) {
	t := s.targets[id]
	if t != nil && t.conn == absent {
		s.leaveAlone(t, now)
	}
}

func (s *Scheduler) leaveAlone(t *target, now time.Duration) {
	t.strikes = max(t.strikes+1, clonePenalty)
	t.open, t.next = false, now+s.penalty(t)
	s.stop(t, func(*flight) bool { return true })
	s.look(t, now)
}

// penalty is the pause after connections that did not last.
func (s *Scheduler) penalty(t *target) time.Duration {
	d := min(s.timing.MinBackoff<<min(t.strikes, 16), s.timing.MaxBackoff)
	return d - time.Duration(s.cfg.Rand()*float64(d)/4)
}

// Doubt tells whether a connected peer is thought to be out of reach on the
// connections that it has. It is dialled as if it were absent until it is
// connected anew or the doubt is taken back.
func (s *Scheduler) Doubt(now time.Duration, id identity.ID, doubted bool) {
	t := s.targets[id]
	if t == nil || t.conn == absent || t.doubted == doubted {
		return
	}
	t.doubted = doubted
	if doubted {
		t.away, t.next = now, now
		t.open = false
	} else {
		s.relax(t, now)
	}
	s.look(t, now)
}

// relax ends the search for a peer that turned out to be in reach.
func (s *Scheduler) relax(t *target, now time.Duration) {
	t.open, t.next = false, never
	s.stop(t, func(*flight) bool { return true })
	if t.conn == overTCP && s.cfg.QUIC {
		t.upgrade = max(t.upgrade, s.timing.Upgrade)
		t.next = now + t.upgrade
	}
}

// NetworkChanged tells that this machine's links, addresses or routes changed,
// or that it woke up. Everything is tried again at once, also what is under way.
// local are the machine's addresses.
func (s *Scheduler) NetworkChanged(now time.Duration, local []netip.Addr) {
	s.SetLocal(local)
	s.change = min(s.change, max(now, s.changed+s.calm))
}

// SetLocal tells this machine's addresses, which decide what is near.
func (s *Scheduler) SetLocal(local []netip.Addr) {
	if slices.Equal(s.local, local) {
		return
	}
	s.local = slices.Clone(local)
	s.shared, s.near = make(map[netip.Addr]bool), make(map[netip.Prefix]bool)
	for _, a := range local {
		s.shared[a] = true
		if p, err := a.Prefix(subnetBits(a)); err == nil && !a.IsLoopback() {
			s.near[p] = true
		}
	}
	for _, t := range s.all {
		s.arrange(t)
	}
}

// Done reports a dial. A dial that ended well was told by Connected before.
func (s *Scheduler) Done(now time.Duration, r Result) {
	f := s.dials[r.Number]
	if f == nil {
		return
	}
	delete(s.dials, r.Number)
	if f.epoch == s.epoch {
		s.used[f.pool]--
	}
	t := f.t
	if t.number == 0 { // dropped meanwhile
		return
	}
	t.lastTried, t.lastResult = f.Dial, r.Why
	if f.round == t.round {
		t.flying--
		f.a.flying--
	}
	switch {
	case r.Outcome == OK && t.host != nil:
		s.moveIn(t, r.Peer, now)
	case r.Outcome == Self:
		f.a.own = now + s.timing.SelfDial
	case r.Outcome == Clone && t.conn == absent:
		s.leaveAlone(t, now)
	case r.Outcome == NotAllowed && f.round == t.round && t.open:
		s.closeRound(t, now)
	case f.Transport == QUIC && f.round == t.round:
		f.a.failed = t.round
	}
	s.look(t, now)
}

// Next says what to do now, and when to ask again if nothing happens before.
func (s *Scheduler) Next(now time.Duration) (steps Steps, again time.Duration) {
	s.late.note(now)
	if len(s.dials) == 0 {
		s.late.idle = now
	}
	s.slots = s.late.slots(s.limits.Members, now)
	if s.change <= now {
		s.actOnChange(now)
	}
	// Who waits for a slot comes before who would have to wait from now on.
	s.serve(now)
	for t := s.waiting.first(); t != nil && t.at <= now; t = s.waiting.first() {
		t.leave()
		s.run(t, now)
	}
	s.serve(now)
	again = s.change
	if t := s.waiting.first(); t != nil {
		again = min(again, t.at)
	}
	s.late.asked = again
	steps, s.out = s.out, Steps{}
	return steps, again
}

// serve gives the free slots to those who wait for one.
func (s *Scheduler) serve(now time.Duration) {
	for t := s.unblock(); t != nil; t = s.unblock() {
		t.leave()
		s.run(t, now)
	}
}

// maxCalm is the time between changes of a network that changes all the time.
const maxCalm = time.Second

// actOnChange begins a new round for everybody.
func (s *Scheduler) actOnChange(now time.Duration) {
	s.calm = s.timing.Change
	if now-s.changed <= maxCalm { // again: leave the dials some time
		s.calm = maxCalm
	}
	s.changed, s.change = now, never
	// What is under way may be doomed, and holds no slot any more. It may succeed
	// as well; but changes that follow each other do not pile dials up.
	for i, f := range s.sorted() {
		if i < len(s.dials)-s.limits.Members-s.limits.Strangers {
			s.out.Stop = append(s.out.Stop, f.Number)
		}
	}
	s.epoch++
	s.used = [pools]int{}
	spread := min(s.timing.Spread, time.Duration(len(s.all))*time.Millisecond)
	all := slices.Clone(s.all)
	slices.SortStableFunc(all, func(a, b *target) int {
		return cmp.Or(cmp.Compare(b.away, a.away), cmp.Compare(a.blocked, b.blocked))
	})
	for i, t := range all {
		for _, a := range t.addrs {
			a.own = 0
		}
		if !s.wants(t) {
			continue
		}
		if t.conn == overTCP && !t.doubted {
			t.upgrade = s.timing.Upgrade
		}
		// Who was there last goes first, and of several who waits for a slot. Whose turn
		// was near keeps it: the next change may come before the spread is over.
		next := now + time.Duration((float64(i)+s.cfg.Rand())/float64(len(all))*float64(spread))
		if !t.open {
			next = min(next, t.next)
		}
		t.open, t.next = false, next
		s.look(t, now)
	}
}

// sorted are the dials under way in the order in which they began.
func (s *Scheduler) sorted() []*flight {
	out := make([]*flight, 0, len(s.dials))
	for _, f := range s.dials {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b *flight) int { return int(a.Number) - int(b.Number) })
	return out
}

// stop gives dials of a target up.
func (s *Scheduler) stop(t *target, which func(*flight) bool) {
	if t.flying == 0 && len(s.dials) == 0 {
		return
	}
	for _, f := range s.sorted() {
		if f.t == t && which(f) {
			s.out.Stop = append(s.out.Stop, f.Number)
		}
	}
}
