package dial

import (
	"net/netip"
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Rumour is what was heard on the local network, where anybody may say anything.
type Rumour struct {
	Member identity.ID
	Addrs  []netip.AddrPort // only those that may be dialled
	Source netip.Addr       // who said so
}

// Hear takes in a rumour.
func (s *Scheduler) Hear(now time.Duration, r Rumour) {
	addrs := r.Addrs[:min(len(r.Addrs), s.limits.Heard)]
	if len(addrs) == 0 || r.Member == s.cfg.Self || r.Member.IsZero() {
		return
	}
	t := s.targets[r.Member]
	if t == nil {
		if t = s.rumoured(now, r); t == nil {
			return
		}
	}
	heard := slices.Clone(addrs)
	for _, a := range t.heard {
		if !slices.Contains(heard, a) && len(heard) < s.limits.Heard {
			heard = append(heard, a)
		}
	}
	if !slices.Equal(heard, t.heard) {
		t.heard = heard
		s.arrange(t)
	}
	// Also what was known is news: whoever announces itself is there now. Where
	// that is known from somebody better, a stranger's word does not begin a round
	// that takes the slots of members.
	if t.rumour {
		s.news(t, now)
		return
	}
	if t.conn == absent && s.wants(t) {
		t.hear = min(t.hear, max(now+s.deference(t), t.begun+s.timing.News))
		s.look(t, now)
	}
}

// rumoured makes a target of a rumour, in the place of another one if there are many.
func (s *Scheduler) rumoured(now time.Duration, r Rumour) *target {
	if len(s.rumours) >= s.limits.Rumours {
		s.drop(s.leastCredible(r.Source))
	}
	if len(s.all) >= s.limits.Targets {
		return nil
	}
	t := s.create(now, r.Member)
	t.rumour, t.source = true, r.Source
	s.rumours = append(s.rumours, t)
	return t
}

// leastCredible is the rumour to give up for one from a source: of whoever spread
// most of them, the oldest that had its turn, or else the oldest.
func (s *Scheduler) leastCredible(source netip.Addr) *target {
	count := map[netip.Addr]int{source: 1}
	most := 0
	for _, t := range s.rumours {
		count[t.source]++
		most = max(most, count[t.source])
	}
	var oldest *target
	for _, t := range s.rumours {
		if count[t.source] < most {
			continue
		}
		if t.tries > 0 {
			return t
		}
		if oldest == nil {
			oldest = t
		}
	}
	return oldest
}

// vouchedTarget returns the target of a member that somebody admitted speaks for,
// or nil if that cannot be one.
func (s *Scheduler) vouchedTarget(now time.Duration, id identity.ID) *target {
	if id == s.cfg.Self || id.IsZero() {
		return nil
	}
	t := s.targets[id]
	if t == nil {
		if !s.makeRoom() {
			return nil
		}
		return s.create(now, id)
	}
	if t.rumour {
		t.rumour = false
		s.rumours = slices.DeleteFunc(s.rumours, func(r *target) bool { return r == t })
	}
	return t
}

// makeRoom gives up a rumour, or whoever was met and is away for longest, when
// there are too many targets.
func (s *Scheduler) makeRoom() bool {
	if len(s.all) < s.limits.Targets {
		return true
	}
	if len(s.rumours) > 0 {
		s.drop(s.rumours[0])
		return true
	}
	var gone *target
	for _, t := range s.all {
		if t.end(s.timing) != never && (gone == nil || t.away < gone.away) {
			gone = t
		}
	}
	if gone == nil {
		return false
	}
	s.drop(gone)
	return true
}

func (s *Scheduler) create(now time.Duration, id identity.ID) *target {
	s.created++
	t := &target{number: s.created, id: id, born: now, away: now, blocked: never, hear: never}
	t.next = now + s.deference(t)
	if !id.IsZero() {
		s.targets[id] = t
	}
	s.all = append(s.all, t)
	return t
}

// drop forgets a target.
func (s *Scheduler) drop(t *target) {
	s.stop(t, func(*flight) bool { return true })
	t.leave()
	t.number = 0
	delete(s.targets, t.id)
	isIt := func(o *target) bool { return o == t }
	s.all = slices.DeleteFunc(s.all, isIt)
	if t.rumour {
		s.rumours = slices.DeleteFunc(s.rumours, isIt)
	}
}

// Host is a configured address.
type Host struct {
	Name  string           // how it was written; the key
	ID    identity.ID      // zero: whoever lives there
	Addrs []netip.AddrPort // where the name needs no look-up
}

// Configure adds a host, for good.
func (s *Scheduler) Configure(now time.Duration, h Host) {
	if s.hosts[h.Name] != nil || h.ID == s.cfg.Self {
		return
	}
	own := &host{name: h.Name, fixed: len(h.Addrs) > 0, addrs: slices.Clone(h.Addrs)}
	s.hosts[h.Name] = own
	if h.ID.IsZero() {
		own.asked = s.create(now, identity.ID{})
		own.asked.host, own.asked.next = own, now
		s.arrange(own.asked)
		s.look(own.asked, now)
		return
	}
	s.lodge(own, h.ID, now)
}

// lodge makes a member the resident of a host.
func (s *Scheduler) lodge(h *host, id identity.ID, now time.Duration) {
	t := s.vouchedTarget(now, id)
	if t == nil {
		return
	}
	if before := s.targets[h.resident]; before != nil && before != t {
		before.hosts = slices.DeleteFunc(before.hosts, func(o *host) bool { return o == h })
		s.arrange(before)
		s.look(before, now)
	}
	h.resident = id
	if !slices.Contains(t.hosts, h) {
		t.hosts = append(t.hosts, h)
		s.arrange(t)
		s.news(t, now)
	}
}

// moveIn notes who answered at a host that was asked.
func (s *Scheduler) moveIn(t *target, id identity.ID, now time.Duration) {
	s.lodge(t.host, id, now)
	t.open = false
	// If the resident stays away, somebody else may have moved in.
	t.next, t.away = now+s.timing.Resident, now
	s.stop(t, func(*flight) bool { return true })
}

// lookUp asks where a host is now.
func (s *Scheduler) lookUp(h *host) {
	if !h.fixed && !h.looking {
		h.looking = true
		s.out.Resolve = append(s.out.Resolve, h.name)
	}
}

// Resolved answers a look-up; none when it failed.
func (s *Scheduler) Resolved(now time.Duration, name string, addrs []netip.AddrPort) {
	h := s.hosts[name]
	if h == nil {
		return
	}
	h.looking = false
	if len(addrs) > 0 {
		h.addrs = slices.Clone(addrs[:min(len(addrs), s.limits.Addrs)])
	}
	for _, t := range []*target{h.asked, s.targets[h.resident]} {
		if t != nil {
			s.arrange(t)
			s.look(t, now)
		}
	}
}

// looking reports whether a name of the target is being looked up.
func (t *target) looking() bool {
	return t.host != nil && t.host.looking || slices.ContainsFunc(t.hosts, func(h *host) bool { return h.looking })
}
