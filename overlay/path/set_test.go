package path

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
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

	talk    bool // there are packets, one each step
	replies bool // and the peer answers them
	waiting map[uint16]time.Duration
	heard   map[uint16]time.Duration
	probed  map[netip.AddrPort]int // probes by where they went
	large   map[netip.AddrPort]int // of these, those larger than Small
	lost    int                    // packets that went nowhere
	moves   int                    // of the choice
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, set: NewSet(testFull), now: time.Second, ways: map[Path]way{}, kernel: map[netip.AddrPort]netip.Addr{}, talk: true, replies: true,
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
	if l.mtu < size {
		return false
	}
	w.coming = append(w.coming, arrival{w.now + l.rtt, real, nonce})
	return false
}

func (w *world) tick() {
	w.now += step
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
		w.set.Observe(id, Activity{Used: w.waiting[id] > 0, Waiting: w.waiting[id], Heard: w.heard[id]}, w.now)
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
	} else if w.replies {
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

// An answer teaches which address of this machine the kernel has chosen.
func TestFirstPath(t *testing.T) {
	w, p := settled(t)
	if infos := w.set.Infos(w.now); len(infos) != 1 || infos[0].Path != p || infos[0].State != Alive || infos[0].MTU != testFull || !infos[0].Chosen {
		t.Errorf("%+v", infos)
	}
	w.wantWhy(whyAnswered)
	if w.run(10 * time.Minute); w.lost > 0 || w.moves > 0 {
		t.Errorf("%d packets lost, %d moves", w.lost, w.moves)
	}
}

// The old address is gone, and the kernel says so: Wi-Fi to LTE.
func TestRoamingThatTheKernelTells(t *testing.T) {
	for _, told := range []bool{true, false} {
		w, p := settled(t)
		q := Path{Socket: 1, Local: lte, Remote: home}
		w.ways[p] = way{refuses: true}
		w.run(3 * time.Second) // there is nothing yet
		w.ways[q] = way{rtt: 60 * time.Millisecond, mtu: 1500}
		w.kernel[home] = lte
		if told {
			w.set.NetworkChanged(w.now)
		}
		if took := w.until(q); took > time.Second {
			t.Errorf("told %v: packets go again after %v", told, took)
		}
		w.lost = 0
		if w.run(10 * time.Minute); w.lost > 0 {
			t.Errorf("told %v: %d packets lost later", told, w.lost)
		}
	}
}

// The old address stays and leads nowhere; the kernel prefers another one.
func TestRoamingWithoutAWord(t *testing.T) {
	w, p := settled(t)
	q := Path{Socket: 1, Local: lte, Remote: home}
	w.ways[p] = way{}
	w.ways[q] = way{rtt: 60 * time.Millisecond, mtu: 1500}
	w.kernel[home] = lte
	if took := w.until(q); took > time.Second {
		t.Errorf("packets go again after %v", took)
	}
	w.wantWhy(whySilent)
}

// The peer has another address, or a translator gave it one: its packets come from there.
func TestPeerMoves(t *testing.T) {
	w, p := settled(t)
	q := Path{Socket: 1, Local: wifi, Remote: away}
	w.ways[p] = way{}
	w.ways[q] = way{rtt: 40 * time.Millisecond, mtu: 1500}
	for range 3 {
		w.run(50 * time.Millisecond)
		w.coming = append(w.coming, arrival{w.now, q, 0})
	}
	if took := w.until(q); took > 500*time.Millisecond {
		t.Errorf("packets follow after %v", took)
	}
	// And back again.
	w.run(time.Minute)
	w.ways[p], w.ways[q] = way{rtt: 10 * time.Millisecond, mtu: 1500}, way{}
	w.coming = append(w.coming, arrival{w.now, p, 0})
	if took := w.until(p); took > 500*time.Millisecond {
		t.Errorf("packets follow back after %v", took)
	}
}

// A path ends while packets flow: the other one takes over, or the stream does.
func TestDeadPathLoses(t *testing.T) {
	for _, replies := range []bool{true, false} {
		for _, rtt := range []time.Duration{time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond} {
			w, p := settled(t)
			w.ways[p] = way{rtt: rtt, mtu: 1500}
			w.replies = replies
			w.run(3 * time.Minute)
			if w.lost > 0 || w.moves > 0 {
				t.Fatalf("rtt %v, replies %v: %d packets lost, %d moves", rtt, replies, w.lost, w.moves)
			}
			w.ways[p] = way{}
			took := w.until(Stream)
			if took > 2*time.Second+2*max(rtt-100*time.Millisecond, 0) { // what is on its way still comes
				t.Errorf("rtt %v, replies %v: dead after %v", rtt, replies, took)
			}
			t.Logf("RESULT dead path, rtt %v, replies %v: the stream takes over after %v", rtt, replies, took)
			w.ways[p] = way{rtt: rtt, mtu: 1500}
			if took := w.until(p); took > time.Second+2*rtt {
				t.Errorf("rtt %v: back after %v", rtt, took)
			}
		}
	}
	w, p := settled(t)
	q := Path{Socket: 1, Local: wifi, Remote: away}
	w.ways[q] = way{rtt: 20 * time.Millisecond, mtu: 1500}
	w.set.Connections([]Path{p, q}, w.now)
	w.run(10 * time.Second)
	w.ways[p] = way{}
	if took := w.until(q); took > time.Second {
		t.Errorf("the other path takes over after %v", took)
	}
}

// A path that comes and goes is not returned to each time.
func TestFlappingPath(t *testing.T) {
	w, p := settled(t)
	q := Path{Socket: 1, Local: wifi, Remote: away}
	w.ways[q] = way{rtt: 20 * time.Millisecond, mtu: 1500}
	w.set.Connections([]Path{p, q}, w.now)
	w.run(20 * time.Second)
	for range 100 {
		w.ways[p] = way{}
		w.run(3 * time.Second)
		w.ways[p] = way{rtt: 5 * time.Millisecond, mtu: 1500}
		w.run(3 * time.Second)
	}
	if w.moves > 2 {
		t.Errorf("%d moves in ten minutes", w.moves)
	}
	if got, _, _ := w.set.Chosen(); got != q {
		t.Errorf("packets go by %v", got)
	}
}

// A path that is much faster is preferred, and one that needs no relay.
func TestBetterPath(t *testing.T) {
	for name, c := range map[string]struct {
		first, second Path
		rtt           time.Duration
		want          string // why it is taken; "": it is not
	}{
		"faster":            {Path{Socket: 1, Local: wifi, Remote: away}, Path{Socket: 1, Local: wifi, Remote: home}, time.Millisecond, whyFaster},
		"a little faster":   {Path{Socket: 1, Local: wifi, Remote: away}, Path{Socket: 1, Local: wifi, Remote: home}, 9 * time.Millisecond, ""},
		"no relay":          {Path{Socket: 1, Local: wifi, Remote: away, Via: identity.ID{1}}, Path{Socket: 1, Local: wifi, Remote: home}, 50 * time.Millisecond, whyDirect},
		"a relay is faster": {Path{Socket: 1, Local: wifi, Remote: away}, Path{Socket: 1, Local: wifi, Remote: home, Via: identity.ID{1}}, time.Millisecond, ""},
	} {
		w := newWorld(t)
		w.ways[c.first] = way{rtt: 10 * time.Millisecond, mtu: 1500}
		w.set.Connections([]Path{c.first}, w.now)
		w.until(c.first)
		w.run(time.Minute)
		w.ways[c.second] = way{rtt: c.rtt, mtu: 1500}
		w.set.Connections([]Path{c.first, c.second}, w.now)
		w.run(20 * time.Second)
		got, _, _ := w.set.Chosen()
		if taken := got == c.second; taken != (c.want != "") || taken && w.set.Why() != c.want {
			t.Errorf("%s: packets go by %v since %s", name, got, w.set.Why())
		}
	}
}

// A path of 1220 bytes is used as such: nothing goes by the stream for long.
func TestBlackHole(t *testing.T) {
	w, p := settled(t)
	w.replies = true
	w.ways[p] = way{rtt: 10 * time.Millisecond, mtu: 1220}
	began := w.now
	for {
		w.tick()
		if _, _, mtu := w.set.Chosen(); mtu > 0 && mtu <= 1220 || w.now > began+time.Minute {
			break
		}
	}
	got, _, mtu := w.set.Chosen()
	took := w.now - began
	if took > 5*time.Second || got != p {
		t.Errorf("packets go by %v with mtu %d after %v", got, mtu, took)
	}
	t.Logf("RESULT path of 1280: %v of lost traffic", took)
	w.lost = 0
	if w.run(time.Minute); w.lost > 200 { // a larger size is tried by probes alone
		t.Errorf("%d packets lost later", w.lost)
	}
}

// A forged or repeated source address moves no traffic while the path is alive, and
// makes this node send next to nothing there.
func TestSpoofedSource(t *testing.T) {
	w, p := settled(t)
	q := Path{Socket: 1, Local: wifi, Remote: third} // the victim: it does not answer
	for range 60 * 200 {                             // a minute, in which every packet comes from there once more
		w.tick()
		w.set.Heard(q, w.now)
	}
	if got, _, _ := w.set.Chosen(); got != p || w.moves > 0 || w.lost > 0 {
		t.Errorf("packets go by %v, %d moves, %d lost", got, w.moves, w.lost)
	}
	if w.large[third] > 0 {
		t.Errorf("%d large probes to the victim", w.large[third])
	}
	if n := w.probed[third]; n == 0 || n > 200 {
		t.Errorf("%d small probes a minute to the victim", n)
	}
	// From everywhere at once.
	clear(w.probed)
	for i := range 10_000 {
		w.tick()
		w.set.Heard(Path{Socket: 1, Local: wifi, Remote: netip.AddrPortFrom(third.Addr(), uint16(i))}, w.now)
	}
	if n := len(w.set.Infos(w.now)); n > maxPaths {
		t.Errorf("%d paths", n)
	}
	sum := 0
	for _, n := range w.probed {
		sum += n
	}
	if sum > 300 || w.moves > 0 {
		t.Errorf("%d probes in %v, %d moves", sum, 10_000*step, w.moves)
	}
	// A real move still works afterwards.
	r := Path{Socket: 1, Local: wifi, Remote: away}
	w.ways[r] = way{rtt: 10 * time.Millisecond, mtu: 1500}
	w.run(time.Minute)
	w.ways[p] = way{}
	w.coming = append(w.coming, arrival{w.now, r, 0})
	if took := w.until(r); took > 500*time.Millisecond {
		t.Errorf("packets follow a real move after %v", took)
	}
}

// An answer proves nothing but the path that it came by.
func TestAnswerByAnotherPath(t *testing.T) {
	w := newWorld(t)
	p, q := Path{Socket: 1, Local: wifi, Remote: home}, Path{Socket: 1, Local: wifi, Remote: away}
	w.set.Connections([]Path{p, q}, w.now)
	one, _ := w.set.Due(w.now)
	two, _ := w.set.Due(w.now)
	for _, wrong := range []Path{q, {Socket: 2, Local: wifi, Remote: home}, {Socket: 1, Local: lte, Remote: home}, {Socket: 1, Local: wifi, Remote: home, Via: identity.ID{1}}} {
		w.set.Answered(wrong, one.Nonce, w.now)
	}
	w.set.Answered(p, two.Nonce, w.now)
	w.set.Answered(p, one.Nonce+1, w.now)
	for _, i := range w.set.Infos(w.now) {
		if i.State != Candidate {
			t.Errorf("%+v", i)
		}
	}
	if w.set.Answered(p, one.Nonce, w.now); !w.set.byPath(p).proven {
		t.Error("its own answer does not prove it")
	}
}

// Nobody talks, so nothing is sent.
func TestIdlePathIsLeftInPeace(t *testing.T) {
	w, p := settled(t)
	w.talk = false
	w.run(30 * time.Second)
	clear(w.probed)
	w.run(20 * time.Minute)
	if len(w.probed) > 0 {
		t.Errorf("%v probes in silence", w.probed)
	}
	w.talk = true
	w.run(time.Second)
	if got, _, _ := w.set.Chosen(); got != p || w.lost > 0 {
		t.Errorf("packets go by %v, %d lost", got, w.lost)
	}
	// In use it costs one small exchange in ten seconds.
	w.run(time.Minute)
	clear(w.probed)
	if w.run(10 * time.Minute); w.probed[home] > 61 {
		t.Errorf("%d probes in ten minutes of use", w.probed[home])
	}
}

// The text of a choice without a path.
func TestWhyNoPath(t *testing.T) {
	w := newWorld(t)
	w.tick()
	w.wantWhy(whyNoPath)
	p := Path{Socket: 1, Local: wifi, Remote: home}
	w.set.Connections([]Path{p}, w.now)
	w.tick()
	w.wantWhy(whyProbing)
	w.run(2 * time.Second)
	w.wantWhy(whyUnanswered)
	w.ways[p] = way{mtu: 1000}
	w.run(20 * time.Second)
	w.wantWhy("packets of 1168 bytes do not get through")
	w.ways[p] = way{mtu: 1500}
	w.set.Restart(w.now)
	w.until(p)
	w.wantWhy(whyAnswered)
	w.ways[p] = way{refuses: true}
	w.run(20 * step)
	w.wantWhy("packets are refused: no")
	if !w.set.Unanswered() {
		w.run(time.Second)
		if !w.set.Unanswered() {
			t.Error("somebody answers")
		}
	}
}
