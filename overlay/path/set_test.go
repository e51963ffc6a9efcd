package path

import (
	"net/netip"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

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

// Only the way there ends: the peer does not know, and its packets still come by the path.
func TestDeafPathLoses(t *testing.T) {
	for _, bulk := range []bool{true, false} {
		for _, rtt := range []time.Duration{time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond} {
			var longest time.Duration
			for after := time.Duration(0); after < probeLarge; after += 500 * time.Millisecond {
				w, p := settled(t)
				q := Path{Socket: 1, Local: wifi, Remote: away}
				w.ways[p], w.ways[q], w.bulk = way{rtt: rtt, mtu: 1500}, way{rtt: rtt + 20*time.Millisecond, mtu: 1500}, bulk
				w.set.Connections([]Path{p, q}, w.now)
				if w.run(time.Minute + after); w.moves > 0 {
					t.Fatalf("bulk %v, rtt %v: %d moves", bulk, rtt, w.moves)
				}
				w.ways[p], w.speaks = way{}, p
				longest = max(longest, w.until(q))
			}
			if longest > 2*time.Second+2*max(rtt-100*time.Millisecond, 0) {
				t.Errorf("bulk %v, rtt %v: the other path takes over after %v", bulk, rtt, longest)
			}
			t.Logf("RESULT a path that is dead in one direction, bulk %v, rtt %v: the other takes over within %v", bulk, rtt, longest)
		}
	}
}

// A path falls silent, and the peer is known to have other addresses: they are asked, few
// times, and the one that answers is taken.
func TestSilentPathIsReplaced(t *testing.T) {
	q, nobody := Path{Socket: 1, Remote: away}, Path{Socket: 1, Remote: third}
	for _, refuses := range []bool{false, true} {
		w, p := settled(t)
		w.kernel[away], w.kernel[third] = lte, wifi
		real := Path{Socket: 1, Local: lte, Remote: away}
		w.ways[real] = way{rtt: 40 * time.Millisecond, mtu: 1500}
		w.others = []Path{p.anyLocal(), nobody, q}
		if w.run(time.Minute); w.probed[away]+w.probed[third] > 0 {
			t.Errorf("refuses %v: asked without need: %v", refuses, w.probed)
		}
		w.ways[p] = way{refuses: refuses}
		if took := w.until(real); took > time.Second {
			t.Errorf("refuses %v: the other path takes over after %v", refuses, took)
		}
		w.run(2 * time.Minute)
		if n := w.probed[third]; n == 0 || n > 2*briefTries {
			t.Errorf("refuses %v: %d probes to where nobody is", refuses, n)
		}
		if w.set.byPath(nobody) != nil {
			t.Errorf("refuses %v: it remembers where nobody is", refuses)
		}
	}
}

// A path that loses some packets is not left for another one like it again and again.
func TestLossyPathStays(t *testing.T) {
	w, p := settled(t)
	q := Path{Socket: 1, Local: wifi, Remote: away}
	w.ways[p], w.ways[q] = way{rtt: 20 * time.Millisecond, mtu: 1500, loss: 5}, way{rtt: 20 * time.Millisecond, mtu: 1500, loss: 5}
	w.set.Connections([]Path{p, q}, w.now)
	if w.run(30 * time.Minute); w.moves > 5 {
		t.Errorf("%d moves in half an hour", w.moves)
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
	w.bulk = true
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
	// In use it costs one small exchange in a second.
	w.run(time.Minute)
	clear(w.probed)
	clear(w.large)
	if w.run(10 * time.Minute); w.probed[home] > 601 || w.large[home] > 61 {
		t.Errorf("%d probes in ten minutes of use, %d of them large", w.probed[home], w.large[home])
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
