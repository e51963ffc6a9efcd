package path

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// step is how finely a simulation looks at time.
const step = 5 * time.Millisecond

var (
	wifi  = netip.MustParseAddr("192.0.2.1")
	lte   = netip.MustParseAddr("198.51.100.1")
	home  = netip.MustParseAddrPort("203.0.113.1:4171")
	away  = netip.MustParseAddrPort("203.0.113.2:9999")
	third = netip.MustParseAddrPort("203.0.113.3:53")
)

// way is what lies on a path of a simulation. The zero way loses everything.
type way struct {
	rtt     time.Duration
	mtu     int
	loss    int  // percent of what is sent, and of what comes back
	refuses bool // the kernel takes nothing
}

// arrival is an answer, or a packet of the peer's, on its way here.
type arrival struct {
	at    time.Duration
	by    Path
	nonce uint64 // 0: a packet
}

// world is a Set, the network below it, and a peer that answers by the path that it was
// asked by. The peer sends packets by the path where it got some last, as ours does.
type world struct {
	t      *testing.T
	set    Set
	now    time.Duration
	ways   map[Path]way
	kernel map[netip.AddrPort]netip.Addr // the source address that the kernel chooses
	coming []arrival

	talk    bool   // there are packets, one each step
	replies bool   // and the peer answers them
	bulk    bool   // and they are large
	others  []Path // where the peer may be besides
	speaks  Path   // the peer sends a packet by it each step; Stream: it does not
	dice    *rand.Rand
	waiting map[uint16]time.Duration
	heard   map[uint16]time.Duration
	probed  map[netip.AddrPort]int // probes by where they went
	large   map[netip.AddrPort]int // of these, those larger than Small
	lost    int                    // packets that went nowhere
	moves   int                    // of the choice
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, set: NewSet(testFull), now: time.Second, dice: rand.New(rand.NewPCG(1, 2)), ways: map[Path]way{}, kernel: map[netip.AddrPort]netip.Addr{}, talk: true, replies: true,
		waiting: map[uint16]time.Duration{}, heard: map[uint16]time.Duration{}, probed: map[netip.AddrPort]int{}, large: map[netip.AddrPort]int{},
	}
}

// by is the path that packets of p really take.
func (w *world) by(p Path) Path {
	if !p.Local.IsValid() {
		p.Local = w.kernel[p.Remote]
	}
	return p
}

// carry sends something, and has the answer come if there is one.
func (w *world) carry(p Path, size int, nonce uint64) (refused bool) {
	real := w.by(p)
	l := w.ways[real]
	if l.refuses {
		return true
	}
	if l.mtu < size || w.loses(l) {
		return false
	}
	w.coming = append(w.coming, arrival{w.now + l.rtt, real, nonce})
	return false
}

// loses reports whether something that is sent, or what comes back, gets lost.
func (w *world) loses(l way) bool {
	there, back := w.dice.IntN(100), w.dice.IntN(100)
	return min(there, back) < l.loss
}

func (w *world) tick() {
	w.now += step
	if w.speaks != Stream {
		w.coming = append(w.coming, arrival{w.now, w.speaks, 0})
	}
	slices.SortStableFunc(w.coming, func(a, b arrival) int { return int(a.at - b.at) })
	for len(w.coming) > 0 && w.coming[0].at <= w.now {
		a := w.coming[0]
		w.coming = w.coming[1:]
		w.hear(a)
	}
	if w.talk {
		w.send()
	}
	for id := range w.set.Each {
		w.set.Observe(id, Activity{Used: w.waiting[id] > 0, Large: w.bulk && w.waiting[id] > 0, Waiting: w.waiting[id], Heard: w.heard[id]}, w.now)
	}
	for again := true; again; again = w.set.Next() <= w.now {
		for p, ok := w.set.Due(w.now); ok; p, ok = w.set.Due(w.now) {
			w.probed[p.Remote]++
			if p.Size > Small {
				w.large[p.Remote]++
			}
			if w.carry(p.Path, p.Size, p.Nonce) {
				w.set.Refused(p.ID, 0, "no", w.now)
			}
		}
		if w.set.Choose(w.now) {
			w.moves++
		}
		if w.set.Lost() {
			w.set.Try(w.others, w.now)
		}
	}
}

func (w *world) hear(a arrival) {
	for id, p := range w.set.Each {
		if p == a.by {
			w.waiting[id], w.heard[id] = 0, w.now
		}
	}
	w.set.Heard(a.by, w.now)
	if a.nonce > 0 {
		w.set.Answered(a.by, a.nonce, w.now)
	}
}

func (w *world) send() {
	p, id, mtu := w.set.Chosen()
	if p.IsStream() {
		w.lost++
		return
	}
	if w.waiting[id] == 0 {
		w.waiting[id] = w.now
	}
	l := w.ways[w.by(p)]
	if l.refuses {
		w.lost++
		w.set.Refused(id, 0, "no", w.now)
		return
	}
	if l.mtu < mtu {
		w.lost++
	} else if w.replies && !w.loses(l) {
		w.coming = append(w.coming, arrival{w.now + l.rtt, w.by(p), 0})
	}
}

func (w *world) run(d time.Duration) {
	for end := w.now + d; w.now < end; {
		w.tick()
	}
}

// until lets time pass until p is chosen, and returns how long that took.
func (w *world) until(p Path) time.Duration {
	w.t.Helper()
	began := w.now
	for w.now < began+time.Minute {
		if got, _, _ := w.set.Chosen(); got == p {
			return w.now - began
		}
		w.tick()
	}
	got, _, _ := w.set.Chosen()
	w.t.Fatalf("packets go by %v and not by %v: %+v", got, p, w.set.Infos(w.now))
	return 0
}

// settled is a world in which packets go home by Wi-Fi for a while.
func settled(t *testing.T) (*world, Path) {
	w := newWorld(t)
	p := Path{Socket: 1, Local: wifi, Remote: home}
	w.ways[p] = way{rtt: 10 * time.Millisecond, mtu: 1500}
	w.kernel[home] = wifi
	w.set.Connections([]Path{p.anyLocal()}, w.now)
	w.until(p)
	w.run(time.Minute)
	w.lost, w.moves = 0, 0
	clear(w.probed)
	clear(w.large)
	return w, p
}

func (w *world) wantWhy(want string) {
	w.t.Helper()
	if got := w.set.Why(); got != want {
		w.t.Errorf("it says %q, want %q", got, want)
	}
}
