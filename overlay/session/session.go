package session

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// How long keys live, by the caller's monotonic clock.
const (
	RekeyAfterTime  = 2 * time.Minute
	RejectAfterTime = 3 * time.Minute
	// ConfirmTime is how long an answered handshake waits for the peer's first packet
	// before this end begins another one.
	ConfirmTime = time.Second
	// GraceTime is how long it leaves the peer to send the first packet, before it asks
	// for one with these keys itself.
	GraceTime = 200 * time.Millisecond
)

// Session is what two members share over time: the keys that are in use, those
// before them and those after. Its methods may be called from any goroutine.
type Session struct {
	current atomic.Pointer[generation] // nil: nothing can be sealed yet

	mu             sync.Mutex
	previous, next *generation
}

// generation is one pair of keys with the time when they were made.
type generation struct {
	*Keys
	born time.Duration
}

// InstallInitiated takes the keys of a handshake that this end began: they are
// used at once, because the peer has them already. It returns those that the
// session has done with. Keys that the peer made at the same time stay, since it
// uses them at once as well.
func (s *Session) InstallInitiated(k *Keys, now time.Duration) (done []*Keys) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.advance(&generation{k, now})
}

// InstallAnswered takes the keys of a handshake that the peer began: they are
// used once the peer has shown that it has them.
func (s *Session) InstallAnswered(k *Keys, now time.Duration) (done []*Keys) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done = s.drop(&s.next)
	s.next = &generation{k, now}
	return done
}

// Opened says that a packet was opened with these keys. It reports whether they are
// the ones to seal with from now on.
func (s *Session) Opened(k *Keys) (first bool, done []*Keys) {
	if c := s.current.Load(); c != nil && c.Keys == k {
		return false, nil // every packet but one
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil || s.next.Keys != k {
		return false, nil
	}
	g := s.next
	s.next = nil
	return true, s.advance(g)
}

// advance makes g the keys in use.
func (s *Session) advance(g *generation) (done []*Keys) {
	done = s.drop(&s.previous)
	s.previous = s.current.Swap(g)
	return done
}

func (s *Session) drop(g **generation) (done []*Keys) {
	if *g != nil {
		done = []*Keys{(*g).Keys}
	}
	*g = nil
	return done
}

// Sealing returns the keys to seal with; nil when there are none that may be used.
func (s *Session) Sealing(now time.Duration) *Keys {
	c := s.current.Load()
	if c == nil || now-c.born >= RejectAfterTime || c.counter.Load() >= RejectAfterPackets {
		return nil
	}
	return c.Keys
}

// Probing returns the keys to ask with whether the peer is there: those to seal with, or
// those of an answered handshake whose first packet does not come, perhaps because the
// peer sends it from an address that does not get through. Where there are none it
// returns when there will be: never, the largest time, where that is not known.
func (s *Session) Probing(now time.Duration) (*Keys, time.Duration) {
	if k := s.Sealing(now); k != nil {
		return k, now
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.next == nil, now-s.next.born >= RejectAfterTime:
		return nil, math.MaxInt64
	case now-s.next.born < GraceTime:
		return nil, s.next.born + GraceTime
	}
	return s.next.Keys, now
}

// NeedsHandshake reports whether this end should begin a handshake now: there are
// no keys, nor any that the peer is about to use, or they were made by a handshake of
// its own and grow old. The other end waits longer, so that the two do not begin at once.
func (s *Session) NeedsHandshake(now time.Duration) bool {
	c := s.current.Load()
	if c == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.next == nil || now-s.next.born >= ConfirmTime
	}
	age := now - c.born
	if c.initiator {
		return age >= RekeyAfterTime || c.counter.Load() >= RekeyAfterPackets
	}
	return age >= (RekeyAfterTime+RejectAfterTime)/2
}

// Next is when, by age alone, NeedsHandshake becomes true, and when Expire has keys to
// forget: never, the largest time, where there are none.
func (s *Session) Next() (handshake, expire time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	handshake, expire = 0, math.MaxInt64
	c := s.current.Load()
	for _, g := range []*generation{c, s.previous, s.next} {
		if g != nil {
			expire = min(expire, g.born+RejectAfterTime)
		}
	}
	switch {
	case c == nil && s.next != nil:
		handshake = s.next.born + ConfirmTime
	case c == nil:
	case c.initiator:
		handshake = c.born + RekeyAfterTime
	default:
		handshake = c.born + (RekeyAfterTime+RejectAfterTime)/2
	}
	return handshake, expire
}

// Expire forgets keys that may not be used any more, and returns them.
func (s *Session) Expire(now time.Duration) (done []*Keys) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range []**generation{&s.previous, &s.next} {
		if *g != nil && now-(*g).born >= RejectAfterTime {
			done = append(done, s.drop(g)...)
		}
	}
	if c := s.current.Load(); c != nil && now-c.born >= RejectAfterTime {
		s.current.Store(nil)
		done = append(done, c.Keys)
	}
	return done
}
