package dial

import (
	"slices"
	"time"
)

// wants reports whether there is anything to dial a target for.
func (s *Scheduler) wants(t *target) bool {
	switch {
	case t.host != nil:
		resident := s.targets[t.host.resident]
		return resident == nil || resident.conn == absent
	case t.conn == absent || t.doubted:
		return true
	}
	return t.conn == overTCP && s.cfg.QUIC
}

// news has a target dialled soon, because more is known of it.
func (s *Scheduler) news(t *target, now time.Duration) {
	switch {
	case !s.wants(t) || t.open && t.mode != heardOnly:
	case t.round == 0:
		t.next = min(t.next, max(now, t.born+s.deference(t)))
	default:
		t.next = min(t.next, max(now, t.begun+s.timing.News))
	}
	s.look(t, now)
}

// look has Next look at a target.
func (s *Scheduler) look(t *target, now time.Duration) {
	if t.number != 0 {
		s.waiting.put(t, now)
	}
}

// run takes a target's next step. It leaves it in the queue in which it waits.
func (s *Scheduler) run(t *target, now time.Duration) {
	end := t.end(s.timing)
	if end <= now {
		s.drop(t)
		return
	}
	switch wanted := s.wants(t); {
	case !wanted:
		t.open, t.hear = false, never
	case t.next <= now && s.defers(t, now): // see there
	case t.next <= now && (!t.open || t.mode == heardOnly):
		s.openRound(t, now)
	case t.hear <= now && !t.open:
		s.openRound(t, now)
		t.mode = heardOnly
	}
	at := min(t.next, t.hear)
	if t.open {
		var blocked bool
		if at, blocked = s.advance(t, now); blocked {
			return
		}
		if t.mode == heardOnly {
			at = min(at, t.next)
		}
	}
	if !t.open && !s.wants(t) {
		at = never
	}
	if at = min(at, end); at != never {
		s.waiting.put(t, at)
	}
}

func (s *Scheduler) openRound(t *target, now time.Duration) {
	t.open, t.begun, t.stepped = true, now, now
	t.round++
	t.flying = 0
	t.blocked, t.hear, t.mode = never, never, everything
	if t.conn == overTCP && !t.doubted {
		t.mode = quicOnly
	}
	for _, a := range t.addrs {
		a.flying = 0
	}
	if t.host != nil {
		s.lookUp(t.host)
	}
	for _, h := range t.hosts {
		s.lookUp(h)
	}
}

// advance begins what is to be begun now. It returns when there will be more,
// or true when the target waits for a slot, in the queue for that.
func (s *Scheduler) advance(t *target, now time.Duration) (time.Duration, bool) {
	for {
		a, over, at := s.turn(t, now)
		switch {
		case a == nil && at == never && t.flying == 0 && !t.looking():
			s.closeRound(t, now)
			return min(t.next, t.hear), false
		case a == nil:
			return at, false
		}
		from := s.poolOf(t, a, now)
		switch {
		case s.free(from):
			t.blocked = never
			s.begin(&flight{t: t, a: a, Dial: Dial{Transport: over}, pool: from}, now)
		case from == ofStrangers && !t.rumour:
			// Hearsay does not hold up what is known of a member.
			a.round, a.tcp, a.failed = t.round, t.round, t.round
		default:
			s.wait(t, from, now)
			return 0, true
		}
	}
}

// turn returns the address whose turn it is now and over what; or no address,
// and when the next one's turn comes.
func (s *Scheduler) turn(t *target, now time.Duration) (next *address, over Transport, at time.Duration) {
	at = never
	if t.flying >= s.limits.PerTarget {
		return nil, 0, never
	}
	live := 0
	for _, a := range t.addrs {
		if a.round != t.round || a.own > now {
			continue
		}
		if a.flying > 0 {
			live++
		}
		if !s.cfg.TCP || t.mode == quicOnly || a.tcp == t.round {
			continue
		}
		ready := a.begun + s.timing.TCPDelay + s.late.patience(now)
		if a.failed == t.round {
			ready = now
		}
		if ready <= now {
			return a, TCP, now
		}
		at = min(at, ready)
	}
	for _, a := range t.addrs {
		if a.round == t.round || a.own > now || t.mode == heardOnly && !slices.Contains(t.heard, a.addr) {
			continue
		}
		ready := now
		if live >= s.limits.AtOnce {
			ready = t.stepped + s.timing.Step + s.late.patience(now)
		}
		if ready > now {
			return nil, 0, min(at, ready)
		}
		if s.cfg.QUIC {
			return a, QUIC, now
		}
		return a, TCP, now
	}
	return nil, 0, at
}

// wait puts a target into the queue for a slot, in the order of when a pause like the
// one before its round is over once more. Who was here a moment ago goes before who
// is gone for days, nobody is passed for ever, and a round that began is ended first.
func (s *Scheduler) wait(t *target, from pool, now time.Duration) {
	if t.blocked == never {
		t.blocked = now
	}
	until := t.begun
	if t.conn == absent {
		until += min((t.begun-t.away)/8, s.timing.MaxBackoff)
	}
	if t.end(s.timing) != never {
		until += s.timing.MaxBackoff // who has no record comes after who has one
	}
	s.blocked[from].put(t, until)
}

// poolOf is where a dial takes its slot from.
func (s *Scheduler) poolOf(t *target, a *address, now time.Duration) pool {
	switch {
	case a.byHearsay || t.mode == heardOnly:
		return ofStrangers
	case t.mode == everything && now-t.away < s.timing.Fresh:
		return ofFresh
	}
	return ofOthers
}

// free reports whether a pool has a slot left.
func (s *Scheduler) free(p pool) bool {
	all := s.used[ofFresh]+s.used[ofOthers] < s.slots
	switch p {
	case ofFresh:
		return all
	case ofOthers:
		return all && s.used[ofOthers] < s.slots-s.slots/4
	}
	return s.used[ofStrangers] < s.limits.Strangers
}

// unblock returns the next target for which there is a slot, or nil.
func (s *Scheduler) unblock() *target {
	var next [pools]*target
	for p := range next {
		if s.free(pool(p)) {
			next[p] = s.blocked[p].first()
		}
	}
	if next[ofFresh] == nil && next[ofOthers] == nil {
		return next[ofStrangers]
	}
	s.served++
	if next[ofFresh] == nil || next[ofOthers] != nil && s.served%4 == 0 {
		return next[ofOthers]
	}
	return next[ofFresh]
}

// begin starts the dial that f names.
func (s *Scheduler) begin(f *flight, now time.Duration) {
	t, a := f.t, f.a
	if a.round != t.round {
		a.round, a.begun, t.stepped = t.round, now, now
	}
	if f.Transport == TCP {
		a.tcp = t.round
	}
	s.dialled++
	f.round, f.epoch = t.round, s.epoch
	f.Number, f.Want, f.Addr, f.Timeout = s.dialled, t.id, a.addr, s.timing.Dial
	if t.host != nil {
		f.Host = t.host.name
	}
	if f.pool == ofStrangers {
		f.Timeout = s.timing.Stranger
	}
	s.used[f.pool]++
	a.flying++
	t.flying++
	t.tries++
	s.dials[f.Number] = f
	s.out.Start = append(s.out.Start, f.Dial)
}

// closeRound ends a round in which nobody was found.
func (s *Scheduler) closeRound(t *target, now time.Duration) {
	t.open = false
	switch {
	case t.host != nil && t.allOwn(now):
		t.next = now + s.timing.SelfDial
	case t.mode == heardOnly: // the rounds for everything go their own way
	case t.mode == quicOnly:
		t.upgrade = max(t.upgrade, s.timing.Upgrade)
		t.next = now + t.upgrade
		t.upgrade = min(2*t.upgrade, s.timing.MaxUpgrade)
	case len(t.addrs) == 0 && len(t.hosts) == 0 && t.host == nil:
		t.next = never // until there is an address
	default:
		t.next = now + s.backoff(now-t.away)
	}
}

// allOwn reports whether a host turned out to be this node, at all its addresses.
func (t *target) allOwn(now time.Duration) bool {
	for _, a := range t.addrs {
		if a.own <= now {
			return false
		}
	}
	return len(t.addrs) > 0
}
