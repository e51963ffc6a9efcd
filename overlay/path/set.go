package path

import (
	"slices"
	"time"
)

// Bounds of what strangers on the way can have this node remember and send.
const (
	maxPaths   = 8                // of one peer
	briefTries = 5                // small probes to a candidate that only a packet speaks for
	freshBurst = 4                // such candidates at once
	freshEvery = 2 * time.Second  // and one more in so long a time
	doubtEvery = time.Second      // between two questions because the peer was heard elsewhere
	keepUnused = 10 * time.Minute // a path that nothing came by, and that no connection uses
	keepDead   = time.Minute      // likewise, one that is dead
)

// Set is the paths to one peer, with what is known of each, and the choice among them.
// It is a value without I/O, made by NewSet, and for one goroutine at a time. Times are
// of one monotonic clock that begins above zero.
type Set struct {
	full    int
	entries []entry
	number  uint16 // of the entry that was made last
	fresh   bucket

	chosen  Path
	why     string
	changed time.Duration // when the choice did
	doubted time.Duration // when the chosen path was asked since the peer was heard elsewhere
	alarm   time.Duration // since when the chosen path owed an answer when others were asked instead
	lost    bool          // that happened, or it is none any more, since Lost was asked
}

// entry is one path.
type entry struct {
	Path
	Prober
	id      uint16 // never 0
	lasting bool   // a connection of the peer uses it
	rumour  bool   // nothing but a packet, or hearsay, speaks for it
	last    time.Duration
	trouble string // why the network below refuses packets; "" where it does not
}

// NewSet makes a Set for packets of up to full bytes, in which Stream is chosen.
func NewSet(full int) Set { return Set{full: full, why: whyNoPath} }

// Probe is a probe that must leave now. ID is that of the path in Each.
type Probe struct {
	Path
	ID    uint16
	Nonce uint64
	Size  int // in bytes; Small or more
}

// Connections says which paths the connections of the peer use: they are candidates
// for as long as they do.
func (s *Set) Connections(paths []Path, now time.Duration) {
	for i := range s.entries {
		s.entries[i].lasting = slices.ContainsFunc(paths, s.entries[i].matches)
	}
	for _, p := range paths {
		if !p.IsStream() && !s.has(p) {
			s.add(p, true, now)
		}
	}
}

// NetworkChanged says that this machine's addresses or routes have changed: the same
// remote ends may be reached from another address now. The kernel is asked for it by a
// probe of each.
func (s *Set) NetworkChanged(now time.Duration) {
	for _, e := range slices.Clone(s.entries) {
		s.renew(e.id, now)
	}
	for i := range s.entries {
		s.entries[i].restart(now)
		s.entries[i].check(now)
	}
}

// Restart has all paths that are not alive asked at once: the peer has new keys.
func (s *Set) Restart(now time.Duration) {
	for i := range s.entries {
		s.entries[i].restart(now)
	}
}

// renew adds the candidate that goes where an entry goes, from an address that the
// kernel chooses.
func (s *Set) renew(id uint16, now time.Duration) {
	e := s.byID(id)
	if e == nil || !e.Local.IsValid() {
		return
	}
	if p := e.anyLocal(); s.byPath(p) == nil {
		s.add(p, e.lasting, now)
	}
}

// Heard says that an authenticated packet came by a path: one that is not known is a
// candidate, unless there were too many lately, and the chosen one is asked whether it
// is still there.
func (s *Set) Heard(p Path, now time.Duration) {
	if e := s.byPath(p); e != nil {
		e.last = now
		e.heard(now)
		e.kick(now)
		s.doubt(p, now)
		return
	}
	if e := s.byPath(p.anyLocal()); e != nil {
		e.last = now
		e.kick(now)
		s.learn(e, p, now)
		return
	}
	if !s.fresh.allow(now) || !s.add(p, false, now) {
		return
	}
	e := &s.entries[len(s.entries)-1]
	e.rumour, e.last = true, now
	s.doubt(p, now)
}

// doubt asks the chosen path whether it is still there, since the peer was heard
// elsewhere.
func (s *Set) doubt(elsewhere Path, now time.Duration) {
	if c := s.byPath(s.chosen); c != nil && c.Path != elsewhere && now-s.doubted >= doubtEvery {
		s.doubted = now
		c.check(now)
	}
}

// look asks all others when the chosen path owes an answer, and the kernel for another
// address to reach its end from.
func (s *Set) look(current *entry, now time.Duration) {
	if current.state(now) != Suspect || s.alarm == current.since {
		return
	}
	s.alarm, s.lost = current.since, true
	id := current.id
	s.renew(id, now)
	for i := range s.entries {
		if e := &s.entries[i]; e.id != id {
			e.kick(now)
			e.check(now)
		}
	}
}

// Lost reports whether the chosen path fell silent or was lost since it was asked before:
// then is the time to Try what else there may be.
func (s *Set) Lost() bool {
	lost := s.lost
	s.lost = false
	return lost
}

// Try asks paths on which nobody was heard whether the peer is there: some times, after
// which those that do not answer are forgotten.
func (s *Set) Try(paths []Path, now time.Duration) {
	for _, p := range paths {
		if s.has(p) {
			continue // that was asked when the others were
		}
		if s.add(p, false, now) {
			s.entries[len(s.entries)-1].rumour = true
		}
	}
}

// Observe takes what happened on the path with that ID; Due says what follows. It
// returns when a silence that lasts is to be observed again, 0 where there is none.
func (s *Set) Observe(id uint16, a Activity, now time.Duration) (again time.Duration) {
	e := s.byID(id)
	if e == nil {
		return 0
	}
	e.last = max(e.last, a.Heard)
	e.observe(a, now)
	if a.Waiting == 0 || e.mtu == 0 || e.doubting {
		return 0
	}
	return max(a.Waiting, e.asked) + e.quiet()
}

// add makes a candidate, where there is room for it.
func (s *Set) add(p Path, lasting bool, now time.Duration) bool {
	if len(s.entries) == maxPaths && !s.evict() {
		return false
	}
	if s.number++; s.number == 0 {
		s.number++
	}
	s.entries = append(s.entries, entry{Path: p, Prober: newProber(s.number, s.full, now), id: s.number, lasting: lasting})
	return true
}

// evict forgets the path that is worth least.
func (s *Set) evict() bool {
	worst := -1
	for i, e := range s.entries {
		if e.lasting || e.Path == s.chosen || e.mtu > 0 {
			continue
		}
		if worst < 0 || e.last < s.entries[worst].last {
			worst = i
		}
	}
	if worst >= 0 {
		s.entries = slices.Delete(s.entries, worst, worst+1)
	}
	return worst >= 0
}

// expire forgets the paths that nothing speaks for any more.
func (s *Set) expire(now time.Duration) {
	s.entries = slices.DeleteFunc(s.entries, func(e entry) bool {
		if e.lasting || e.Path == s.chosen {
			return false
		}
		idle := now - max(e.last, e.lost)
		return e.rumour && !e.proven && !e.ended && e.tries >= briefTries || e.mtu == 0 && idle >= keepDead || idle >= keepUnused
	})
}

// Due returns a probe that must leave now; ok is false where there is none. It is asked
// until there is none.
func (s *Set) Due(now time.Duration) (probe Probe, ok bool) {
	for i := range s.entries {
		e := &s.entries[i]
		if nonce, size := e.due(now); size > 0 {
			return Probe{e.Path, e.id, nonce, size}, true
		}
	}
	s.expire(now)
	return Probe{}, false
}

// Next is when Due has something to say, if nothing happens before. It may be so far
// away that it never comes.
func (s *Set) Next() time.Duration {
	next := never
	for i := range s.entries {
		next = min(next, s.entries[i].next)
	}
	return next
}

// Answered takes the answer to a probe, that came by a path. It proves a path only where
// that is the one that was asked. Of one that is alive it says that packets still get
// there, whatever a translator or a forger makes of their source on the way back.
func (s *Set) Answered(by Path, nonce uint64, now time.Duration) {
	e := s.byID(uint16(nonce >> 32))
	if e == nil || !e.matches(by) && e.mtu == 0 || !e.answered(nonce, now) {
		return
	}
	e.last, e.trouble = now, ""
	if e.Local.IsValid() || !by.Local.IsValid() || !e.matches(by) {
		return
	}
	s.learn(e, by, now)
}

// learn says that by is the path that the kernel has chosen for e.
func (s *Set) learn(e *entry, by Path, now time.Duration) {
	known := s.byPath(by)
	if known != nil && known.mtu > 0 { // nothing is new
		known.lasting = known.lasting || e.lasting
		known.last = now
		known.heard(now)
		s.remove(e.id)
		return
	}
	if e.Path == s.chosen {
		s.chosen = by
	}
	e.Path = by
	if known != nil {
		e.lasting = e.lasting || known.lasting
		s.remove(known.id)
	}
}

// Refused says that the network below did not take a packet of size bytes on a path, and
// why in a few words. A size of 0 is any.
func (s *Set) Refused(id uint16, size int, why string, now time.Duration) {
	e := s.byID(id)
	if e == nil {
		return
	}
	e.refused(size, now)
	if e.mtu > 0 {
		return
	}
	if e.trouble = why; size == 0 {
		s.renew(id, now) // the address may be gone
	}
}

// Unsent says that there was no room for a probe.
func (s *Set) Unsent(id uint16, nonce uint64, now time.Duration) {
	if e := s.byID(id); e != nil {
		e.unsent(nonce, now)
	}
}

// remove forgets a path.
func (s *Set) remove(id uint16) {
	s.entries = slices.DeleteFunc(s.entries, func(e entry) bool { return e.id == id })
}

// Path is the path with that ID.
func (s *Set) Path(id uint16) (p Path, ok bool) {
	if e := s.byID(id); e != nil {
		return e.Path, true
	}
	return Path{}, false
}

// Each is the ID and the path of each of them.
func (s *Set) Each(yield func(uint16, Path) bool) {
	for i := range s.entries {
		if !yield(s.entries[i].id, s.entries[i].Path) {
			return
		}
	}
}

// Unanswered reports whether there are paths and none answers, though each that a
// connection uses was asked some times: with these keys perhaps nobody can.
func (s *Set) Unanswered() bool {
	asked := false
	for i := range s.entries {
		e := &s.entries[i]
		if e.proven || e.mtu > 0 || e.lasting && e.tries < 3 {
			return false
		}
		asked = asked || e.lasting
	}
	return asked
}

// has reports whether packets of p may be those of a path that is known.
func (s *Set) has(p Path) bool {
	return slices.ContainsFunc(s.entries, func(e entry) bool { return e.matches(p) })
}

func (s *Set) byID(id uint16) *entry {
	for i := range s.entries {
		if s.entries[i].id == id {
			return &s.entries[i]
		}
	}
	return nil
}

func (s *Set) byPath(p Path) *entry {
	for i := range s.entries {
		if s.entries[i].Path == p {
			return &s.entries[i]
		}
	}
	return nil
}

// bucket is tokens for candidates that packets speak for; the zero value is full.
type bucket struct {
	spent int
	last  time.Duration
}

func (b *bucket) allow(now time.Duration) bool {
	if back := int((now - b.last) / freshEvery); back > 0 {
		b.spent, b.last = max(0, b.spent-back), now
	}
	if b.spent >= freshBurst {
		return false
	}
	b.spent++
	return true
}
