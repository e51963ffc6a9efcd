package dial

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// world is a network in virtual time, with one scheduler in it.
//
//	Scheduler --Start--> place: answers after its delay, or never
//	    ^                  |
//	    +--Connected, Done-+
type world struct {
	t      testing.TB
	s      *Scheduler
	now    time.Duration
	places map[netip.AddrPort]*place
	names  map[string][]netip.AddrPort

	events  events
	number  uint64
	flying  map[uint64]Dial
	stopped map[uint64]bool
	conns   map[identity.ID]Transport
	upSince map[identity.ID]time.Duration
	log     []Dial          // every dial that was started
	times   []time.Duration // when
	most    int             // dials at once
}

// place is what is at an address. One that is not in the world swallows packets.
type place struct {
	who       identity.ID
	delay     time.Duration
	noQUIC    bool
	noTCP     bool
	refuses   bool // at once, over both
	from      time.Duration
	otherwise Outcome // instead of being connected; Failed stands for that
}

type event struct {
	at     time.Duration
	number uint64
	do     func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	if e[i].at != e[j].at {
		return e[i].at < e[j].at
	}
	return e[i].number < e[j].number
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

// self is lower than nobody of member's: the scheduler does not wait for them.
var self = identity.ID{0, 1}

func member(i int) identity.ID {
	id := identity.ID{1}
	binary.BigEndian.PutUint32(id[1:], uint32(i))
	return id
}

func addr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 4171)
}

func newWorld(t testing.TB, change func(*Config)) *world {
	seeded := rand.New(rand.NewPCG(1, 2))
	cfg := Config{Self: self, QUIC: true, TCP: true, Rand: seeded.Float64}
	if change != nil {
		change(&cfg)
	}
	return &world{
		t: t, s: New(cfg), places: map[netip.AddrPort]*place{}, names: map[string][]netip.AddrPort{},
		flying: map[uint64]Dial{}, stopped: map[uint64]bool{}, conns: map[identity.ID]Transport{},
		upSince: map[identity.ID]time.Duration{},
	}
}

func (w *world) after(d time.Duration, do func()) {
	w.number++
	heap.Push(&w.events, event{at: w.now + d, number: w.number, do: do})
}

// put places a member at an address.
func (w *world) put(i int, at netip.AddrPort) *place {
	p := &place{who: member(i), delay: 5 * time.Millisecond}
	w.places[at] = p
	return p
}

// run lets the time pass.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	end := w.now + d
	for steps := 0; ; steps++ {
		if steps > 10_000_000 {
			w.t.Fatal("no end of steps")
		}
		todo, again := w.s.Next(w.now)
		w.act(todo)
		if len(todo.Start)+len(todo.Stop)+len(todo.Resolve) == 0 && again <= w.now {
			w.t.Fatalf("at %s there is nothing to do, and it is to be asked again at %s", w.now, again)
		}
		next := min(again, end)
		if len(w.events) > 0 {
			next = min(next, w.events[0].at)
		}
		w.now = max(w.now, next)
		if w.now >= end && (len(w.events) == 0 || w.events[0].at > end) && again > end {
			return
		}
		for len(w.events) > 0 && w.events[0].at <= w.now {
			heap.Pop(&w.events).(event).do()
		}
	}
}

func (w *world) act(todo Steps) {
	for _, d := range todo.Start {
		w.log, w.times = append(w.log, d), append(w.times, w.now)
		w.flying[d.Number] = d
		w.most = max(w.most, len(w.flying))
		w.dial(d)
	}
	for _, n := range todo.Stop {
		if _, ok := w.flying[n]; ok && !w.stopped[n] {
			w.stopped[n] = true
			w.after(0, func() { w.done(Result{Number: n, Why: "stopped"}) })
		}
	}
	for _, name := range todo.Resolve {
		w.after(10*time.Millisecond, func() { w.s.Resolved(w.now, name, w.names[name]) })
	}
}

func (w *world) dial(d Dial) {
	p := w.places[d.Addr]
	blocked := p == nil || p.from > w.now || d.Transport == QUIC && p.noQUIC || d.Transport == TCP && p.noTCP
	switch {
	case p != nil && p.refuses:
		w.after(time.Millisecond, func() { w.done(Result{Number: d.Number, Why: "refused"}) })
	case blocked:
		w.after(d.Timeout, func() { w.done(Result{Number: d.Number, Why: "no answer"}) })
	default:
		w.after(p.delay, func() { w.answer(d, p) })
	}
}

func (w *world) answer(d Dial, p *place) {
	if w.stopped[d.Number] {
		return
	}
	if p.otherwise != Failed {
		w.done(Result{Number: d.Number, Outcome: p.otherwise})
		return
	}
	if !d.Want.IsZero() && d.Want != p.who {
		w.done(Result{Number: d.Number, Why: "somebody else"})
		return
	}
	w.connect(p.who, d.Transport, d.Addr)
	w.done(Result{Number: d.Number, Outcome: OK, Peer: p.who})
}

func (w *world) connect(id identity.ID, over Transport, at netip.AddrPort) {
	before, was := w.conns[id]
	if !was {
		w.upSince[id] = w.now
	}
	if !was || over == QUIC {
		w.conns[id] = over
	}
	if was && before == QUIC {
		over = QUIC
	}
	w.s.Connected(w.now, id, over, at)
}

func (w *world) done(r Result) {
	if _, ok := w.flying[r.Number]; !ok {
		return
	}
	delete(w.flying, r.Number)
	delete(w.stopped, r.Number)
	w.s.Done(w.now, r)
}

func (w *world) lose(id identity.ID) {
	delete(w.conns, id)
	w.s.Disconnected(w.now, id)
}

// dialsOf are the times at which a member was dialled since a moment.
func (w *world) dialsOf(id identity.ID, since time.Duration) (out []time.Duration) {
	for i, d := range w.log {
		if d.Want == id && w.times[i] >= since {
			out = append(out, w.times[i])
		}
	}
	return out
}

func (w *world) connected(id identity.ID) bool { _, ok := w.conns[id]; return ok }

// trace is a name of everything that was started and when.
func (w *world) trace() string {
	h := fnv.New64a()
	for i, d := range w.log {
		fmt.Fprintln(h, w.times[i], d)
	}
	return fmt.Sprintf("%d dials, %x", len(w.log), h.Sum64())
}

// check fails the test if the scheduler's books do not add up.
func (w *world) check() {
	w.t.Helper()
	s := w.s
	if len(s.all) > s.limits.Targets || len(s.rumours) > s.limits.Rumours {
		w.t.Fatalf("%d targets, %d rumours", len(s.all), len(s.rumours))
	}
	used := [pools]int{}
	for _, f := range s.dials {
		if f.epoch == s.epoch {
			used[f.pool]++
		}
	}
	if used != s.used || used[ofFresh]+used[ofOthers] > s.limits.Members || used[ofStrangers] > s.limits.Strangers {
		w.t.Fatalf("slots %v, counted %v", s.used, used)
	}
	queued := 0
	for _, q := range []*queue{&s.waiting, &s.blocked[0], &s.blocked[1], &s.blocked[2]} {
		queued += q.Len()
		for i, t := range q.items {
			if t.index != i || t.in != q || t.number == 0 {
				w.t.Fatal("a queue is out of order")
			}
		}
	}
	if queued > len(s.all) {
		w.t.Fatalf("%d queued of %d", queued, len(s.all))
	}
}
