package session

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

const aSecond = time.Second

// Which keys are used when, told as a story.
func TestSession(t *testing.T) {
	k := make([]*Keys, 6)
	for i := range k {
		k[i] = &Keys{local: uint32(i), initiator: i%2 == 1}
	}
	type step struct {
		name    string
		do      func(*Session) []*Keys
		done    []*Keys
		sealing *Keys
	}
	at := time.Duration(0)
	initiated := func(k *Keys) func(*Session) []*Keys {
		return func(s *Session) []*Keys { return s.InstallInitiated(k, at) }
	}
	answered := func(k *Keys) func(*Session) []*Keys {
		return func(s *Session) []*Keys { return s.InstallAnswered(k, at) }
	}
	opened := func(k *Keys) func(*Session) []*Keys {
		return func(s *Session) []*Keys {
			before := s.Sealing(at)
			first, done := s.Opened(k)
			if changed := s.Sealing(at) != before; first != changed {
				t.Errorf("first is %v, the keys to seal with have changed: %v", first, changed)
			}
			return done
		}
	}
	expire := func(after time.Duration) func(*Session) []*Keys {
		return func(s *Session) []*Keys { at += after; return s.Expire(at) }
	}
	tests := map[string][]step{
		"the initiator sends at once": {
			{"handshake", initiated(k[1]), nil, k[1]},
			{"the next one", initiated(k[3]), nil, k[3]},
			{"the one after it", initiated(k[5]), []*Keys{k[1]}, k[5]},
		},
		"the responder waits for a packet": {
			{"handshake", answered(k[0]), nil, nil},
			{"a packet", opened(k[0]), nil, k[0]},
			{"the next handshake", answered(k[2]), nil, k[0]},
			{"a late packet", opened(k[0]), nil, k[0]},
			{"a new packet", opened(k[2]), nil, k[2]},
			{"a late packet with the old keys", opened(k[0]), nil, k[2]},
		},
		"a handshake that the initiator did not finish": {
			{"handshake", answered(k[0]), nil, nil},
			{"another one", answered(k[2]), []*Keys{k[0]}, nil},
			{"a packet", opened(k[2]), nil, k[2]},
		},
		"both begin at once, and keep what the other one uses": {
			{"one's own", initiated(k[1]), nil, k[1]},
			{"the peer's", answered(k[2]), nil, k[1]},
			{"a packet with the peer's", opened(k[2]), nil, k[2]},
			{"and one with one's own", opened(k[1]), nil, k[2]},
		},
		"keys end": {
			{"handshake", initiated(k[1]), nil, k[1]},
			{"nearly", expire(RejectAfterTime - aSecond), nil, k[1]},
			{"now", expire(aSecond), []*Keys{k[1]}, nil},
		},
		"keys that were never used end too": {
			{"handshake", answered(k[0]), nil, nil},
			{"now", expire(RejectAfterTime), []*Keys{k[0]}, nil},
			{"a packet that comes too late", opened(k[0]), nil, nil},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			at = 0
			var s Session
			for _, st := range steps {
				if done := st.do(&s); fmt.Sprint(done) != fmt.Sprint(st.done) {
					t.Errorf("%s: done with %v, want %v", st.name, done, st.done)
				}
				if got := s.Sealing(at); got != st.sealing {
					t.Errorf("%s: seals with %v, want %v", st.name, got, st.sealing)
				}
			}
		})
	}
}

func TestNeedsHandshake(t *testing.T) {
	var s Session
	if !s.NeedsHandshake(0) {
		t.Error("none without keys")
	}
	own, theirs := &Keys{initiator: true}, &Keys{}
	tests := []struct {
		name    string
		keys    *Keys
		age     time.Duration
		packets uint64
		want    bool
	}{
		{"young", own, RekeyAfterTime - 1, 0, false},
		{"old", own, RekeyAfterTime, 0, true},
		{"used a lot", own, 0, RekeyAfterPackets, true},
		{"the peer's turn", theirs, RekeyAfterTime, RekeyAfterPackets, false},
		{"the peer does not take its turn", theirs, RejectAfterTime - aSecond, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s Session
			tt.keys.counter.Store(tt.packets)
			s.InstallInitiated(tt.keys, 0)
			if got := s.NeedsHandshake(tt.age); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// Two members exchange packets over a way that reorders and repeats them, and make
// new keys all the time, sometimes both at once. Nothing that arrives is refused
// while its keys are at most one generation old, and nothing arrives twice.
// Keys that the peer is about to use are waited for, not long; and Next says until when.
func TestAnsweredHandshakeIsWaitedFor(t *testing.T) {
	var s Session
	next := func(handshake, expire time.Duration) {
		t.Helper()
		if h, e := s.Next(); h != handshake || e != expire {
			t.Errorf("a handshake at %v, an end at %v, want %v and %v", h, e, handshake, expire)
		}
	}
	next(0, math.MaxInt64)
	answered := &Keys{local: 1}
	s.InstallAnswered(answered, aSecond)
	if s.NeedsHandshake(aSecond) || s.NeedsHandshake(aSecond+ConfirmTime-1) {
		t.Error("it does not wait")
	}
	if !s.NeedsHandshake(aSecond + ConfirmTime) {
		t.Error("it waits too long")
	}
	next(aSecond+ConfirmTime, aSecond+RejectAfterTime)
	if k, at := s.Probing(aSecond); k != nil || at != aSecond+GraceTime {
		t.Errorf("it asks with %v, at %v", k, at)
	}
	if k, _ := s.Probing(aSecond + GraceTime); k != answered || s.Sealing(aSecond+GraceTime) != nil {
		t.Errorf("it asks with %v", k)
	}
	if k, _ := s.Probing(aSecond + RejectAfterTime); k != nil {
		t.Errorf("it asks with %v, which have ended", k)
	}
	s.Opened(answered)
	next(aSecond+(RekeyAfterTime+RejectAfterTime)/2, aSecond+RejectAfterTime)
	s.InstallInitiated(&Keys{local: 2, initiator: true}, 2*aSecond)
	next(2*aSecond+RekeyAfterTime, aSecond+RejectAfterTime)
	s.Expire(aSecond + RejectAfterTime)
	next(2*aSecond+RekeyAfterTime, 2*aSecond+RejectAfterTime)
}

func TestRekeyLosesNothing(t *testing.T) {
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 0))
		w := newWorld(t)
		for range 2_000 {
			switch r.IntN(20) {
			case 0:
				w.handshake(r.IntN(2))
			case 1, 2, 3, 4, 5, 6, 7, 8, 9:
				w.send(r.IntN(2))
			default:
				w.deliver(r)
			}
		}
		for len(w.flying) > 0 {
			w.deliver(r)
		}
		if w.sent == 0 || w.sent != w.opened {
			t.Fatalf("seed %d: %d packets were sent and %d opened", seed, w.sent, w.opened)
		}
	}
}

// world is two members and what is between them.
type world struct {
	*testing.T
	ends   [2]end
	index  uint32
	flying []datagram
	sent   int
	opened int
}

type end struct {
	session Session
	keys    map[uint32]*Keys
}

type datagram struct {
	to    int
	bytes []byte
	keys  int // how many handshakes there were when it was sent
}

func newWorld(t *testing.T) *world {
	w := &world{T: t}
	for i := range w.ends {
		w.ends[i].keys = map[uint32]*Keys{}
	}
	w.handshake(0)
	return w
}

// handshake makes new keys once the network has carried all that was sealed two
// generations ago.
func (w *world) handshake(initiator int) {
	for len(w.flying) > 0 && w.flying[0].keys < int(w.index)/2 {
		w.arrive(0)
	}
	a, b := parties(AES256GCM)
	w.index += 2
	a.Index, b.Index = w.index, w.index+1
	i, r := agree(w.T, a, b)
	now := time.Duration(w.index)
	w.install(1-initiator, r, w.ends[1-initiator].session.InstallAnswered(r, now))
	w.install(initiator, i, w.ends[initiator].session.InstallInitiated(i, now))
	w.send(initiator) // the peer may use them from here on
	w.arrive(len(w.flying) - 1)
}

func (w *world) install(at int, k *Keys, done []*Keys) {
	w.ends[at].keys[k.Index()] = k
	w.forget(at, done)
}

func (w *world) forget(at int, done []*Keys) {
	for _, k := range done {
		delete(w.ends[at].keys, k.Index())
	}
}

func (w *world) send(from int) {
	k := w.ends[from].session.Sealing(time.Duration(w.index))
	w.sent++
	w.flying = append(w.flying, datagram{1 - from, seal(w.T, k, "payload"), int(w.index) / 2})
}

// deliver lets one of the packets arrive, or the copy of one.
func (w *world) deliver(r *rand.Rand) {
	if len(w.flying) == 0 {
		return
	}
	i := r.IntN(min(len(w.flying), 64))
	if r.IntN(10) == 0 {
		w.flying = append(w.flying, w.flying[i])
	}
	w.arrive(i)
}

func (w *world) arrive(i int) {
	d := w.flying[i]
	w.flying = append(w.flying[:i], w.flying[i+1:]...)
	to := &w.ends[d.to]
	index, _ := Index(d.bytes)
	k := to.keys[index]
	if k == nil {
		return // a copy that comes later than its keys are kept
	}
	err := opens(k, d.bytes, "payload")
	switch {
	case err == nil:
		w.opened++
		_, done := to.session.Opened(k)
		w.forget(d.to, done)
	case !errors.Is(err, ErrReplay):
		w.Fatal(err)
	}
}
