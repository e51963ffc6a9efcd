package path

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// testFull is what the prober of a test tries first.
const testFull = 1420

// What a prober says over time, told as a story.
func TestProber(t *testing.T) {
	type step struct {
		name         string
		after        time.Duration // since the step before
		answer       int           // to the last probe of that size; 0: it is asked what is due
		idle         bool          // nobody had packets meanwhile
		refused      int           // a packet of that size
		probes       string        // their sizes
		mtu          int           // afterwards
		nextNotAfter time.Duration
	}
	const f, full = Floor, testFull
	proven := []step{
		{name: "small at once", probes: "[9]", nextNotAfter: probeFirst},
		{name: "it is there", answer: Small},
		{name: "all of it", probes: "[1420]", nextNotAfter: probeFirst},
	}
	start := append(proven[:3:3],
		step{name: "the answer", after: 20 * time.Millisecond, answer: full, mtu: full, nextNotAfter: probeSteady},
	)
	small := append(proven[:3:3], []step{
		{name: "again, and less", after: probeFirst, probes: "[1420 1168]", nextNotAfter: 2 * probeFirst},
		{name: "less is answered", after: time.Millisecond, answer: f, mtu: f},
		{name: "all of it once more", probes: "[1420]", mtu: f, nextNotAfter: probeFirst},
		{name: "beside what gets through", after: probeFirst, probes: "[1420 1168]", mtu: f, nextNotAfter: probeWait},
		{name: "which is answered", after: time.Millisecond, answer: f, mtu: f, nextNotAfter: probeFirst},
		{name: "and again", after: probeFirst, probes: "[1420 1168]", mtu: f, nextNotAfter: probeWait},
		{name: "which is answered", after: time.Millisecond, answer: f, mtu: f, nextNotAfter: probeFirst},
		{name: "the middle", after: probeFirst, probes: "[1292]", mtu: f, nextNotAfter: probeFirst},
	}...)
	tests := map[string][]step{
		"a path that answers": append(start[:4:4],
			step{name: "too early", after: probePulse - 1, mtu: full, nextNotAfter: probePulse},
			step{name: "a small one", after: 1, probes: "[9]", mtu: full, nextNotAfter: probeWait},
			step{name: "the answer", after: time.Millisecond, answer: Small, mtu: full, nextNotAfter: probePulse},
			step{name: "one of a packet's size", after: probeSteady, probes: "[1420]", mtu: full, nextNotAfter: probeWait},
			step{name: "the answer", after: time.Millisecond, answer: full, mtu: full, nextNotAfter: probePulse},
		),
		"a path that nobody uses": append(proven[:3:3],
			step{name: "the answer", after: time.Millisecond, answer: full, idle: true, mtu: full, nextNotAfter: probeSteady},
			step{name: "silence", after: probeSteady, idle: true, mtu: full, nextNotAfter: never},
			step{name: "more of it", after: time.Hour, idle: true, mtu: full, nextNotAfter: never},
			step{name: "used", after: probeSteady, probes: "[1420]", mtu: full, nextNotAfter: probePace},
			step{name: "lost", after: probeWait, idle: true, probes: "[1420 1168]", mtu: full, nextNotAfter: probePace},
		),
		"one that does not": {
			{name: "first", probes: "[9]", nextNotAfter: probeFirst},
			{name: "second", after: probeFirst, probes: "[9]", nextNotAfter: 2 * probeFirst},
			{name: "third", after: 2 * probeFirst, probes: "[9]", nextNotAfter: 4 * probeFirst},
			{name: "later", after: 4 * probeFirst, probes: "[9]", nextNotAfter: probePress},
			{name: "much later", after: probePress, probes: "[9]", nextNotAfter: probePress},
		},
		"one that stops to answer": append(start[:4:4],
			step{name: "lost", after: probeSteady, probes: "[1420]", mtu: full, nextNotAfter: probePace},
			step{name: "lost again", after: probePace, probes: "[1420 1168]", mtu: full, nextNotAfter: probePace},
			step{name: "twice", after: probePace, probes: "[1420 1168]", mtu: full, nextNotAfter: probePace},
			step{name: "not soon given up", after: deadDeaf - 2*probePace - 1, probes: "[1420 1168]", mtu: full, nextNotAfter: probePace},
		),
		"one that loses what is large": append(small[:11:11],
			step{name: "which is answered", after: time.Millisecond, answer: 1292, mtu: 1292},
			step{name: "the next middle", probes: "[1356]", mtu: 1292, nextNotAfter: probeFirst},
		),
		"one that is only slow": append(small[:10:10],
			step{name: "the first answer", after: time.Millisecond, answer: full, mtu: full, nextNotAfter: probeSteady},
		),
		"one that refuses all packets": append(start[:4:4],
			step{name: "a probe", after: probeSteady, probes: "[1420]", mtu: full, nextNotAfter: probeWait},
			step{name: "refused", refused: 100, nextNotAfter: probeFirst},
			step{name: "a late answer", answer: full, nextNotAfter: probeFirst},
			step{name: "again", after: probeFirst, probes: "[9]", nextNotAfter: probeFirst},
		),
		"one that refuses large packets": append(start[:4:4],
			step{name: "refused", refused: full, mtu: f},
			step{name: "less", probes: "[1292]", mtu: f, nextNotAfter: probeFirst},
			step{name: "refused", refused: 1292, mtu: f},
			step{name: "still less", probes: "[1228]", mtu: f, nextNotAfter: probeFirst},
			step{name: "the answer", answer: 1228, mtu: 1228},
		),
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			now := time.Second
			p := newProber(7, full, now)
			sent := map[int]uint64{} // by size
			for _, s := range steps {
				now += s.after
				p.observe(Activity{Used: !s.idle}, now)
				switch {
				case s.answer > 0:
					p.answered(sent[s.answer], now)
				case s.refused > 0:
					p.refused(s.refused, now)
				default:
					var sizes []int
					for nonce, size := p.due(now); size > 0; nonce, size = p.due(now) {
						sizes, sent[size] = append(sizes, size), nonce
					}
					if got := fmt.Sprint(sizes); got != s.probes && len(sizes)+len(s.probes) > 0 {
						t.Errorf("%s: probes %s, want %s", s.name, got, s.probes)
					}
				}
				if p.mtu != s.mtu || s.nextNotAfter != never && p.next-now > s.nextNotAfter {
					t.Errorf("%s: mtu %d, next after %v", s.name, p.mtu, p.next-now)
				}
			}
		})
	}
}

func TestProberBelievesOneAnswer(t *testing.T) {
	now := time.Second
	p := newProber(3, testFull, now)
	for ; p.nonce < inFlight+1; now = p.next {
		p.due(now)
	}
	mine := p.number
	for name, nonce := range map[string]uint64{
		"to a probe long ago": mine | 1, "to none": mine | p.nonce + 1, "to what nobody asks": mine, "to one of another path": 4<<32 | p.nonce,
	} {
		if p.answered(nonce, now+time.Second); p.proven {
			t.Errorf("an answer %s counts", name)
		}
	}
	// A path may be slower than the pace of probes.
	at := p.sent[2].at
	if p.answered(mine|2, at+3*time.Second); !p.proven || p.rtt != 3*time.Second {
		t.Errorf("the answer does not count: %+v", p)
	}
	if p.answered(mine|2, time.Hour); p.rtt != 3*time.Second {
		t.Error("it counts twice")
	}
}

// Probes for which there was no room say nothing of the path.
func TestProberWithoutRoom(t *testing.T) {
	now := time.Second
	p := newProber(1, testFull, now)
	for range 2 {
		nonce, _ := p.due(now)
		p.answered(nonce, now)
	}
	for ; now < time.Minute; now = p.next {
		p.observe(Activity{Used: true}, now)
		if nonce, size := p.due(now); size > 0 {
			p.unsent(nonce, now)
		}
		if p.mtu != testFull || p.loss() > 0 {
			t.Fatalf("after %v: mtu %d, loss %d", now, p.mtu, p.loss())
		}
	}
	if nonce, size := p.due(p.next); size != testFull || uint32(nonce) < 100 {
		t.Errorf("probe %d of %d bytes", nonce, size)
	}
}

// wire is what lies between a prober and its peer.
type wire struct {
	mtu    int     // larger probes are lost
	refuse int     // larger probes are refused by the kernel; 0: none
	lose   float64 // this share of all
	delay  time.Duration
	random *rand.Rand
}

// simulation is a prober with its wire and the answers that are on their way.
type simulation struct {
	wire
	Prober
	now     time.Duration
	answers []sentProbe // at: when it comes
	probes  int
	large   int    // of these, those larger than Small
	idle    bool   // there are no packets
	watch   func() // after everything that happens
}

func newSimulation(w wire) *simulation {
	w.random = rand.New(rand.NewPCG(1, 2))
	return &simulation{wire: w, Prober: newProber(1, testFull, time.Second), now: time.Second, watch: func() {}}
}

// run lets time pass, with packets all the time, and answers to them.
func (s *simulation) run(d time.Duration) {
	for end := s.now + d; ; {
		if !s.idle {
			s.observe(Activity{Used: true, Heard: s.now}, s.now)
		}
		at := s.next
		if len(s.answers) > 0 {
			at = min(at, s.answers[0].at)
		}
		if at > end {
			s.now = end
			return
		}
		s.now = max(s.now, at)
		if len(s.answers) > 0 && s.answers[0].at <= s.now {
			nonce := s.answers[0].nonce
			s.answers = s.answers[1:]
			s.answered(nonce, s.now)
		} else if nonce, size := s.due(s.now); size > 0 {
			s.probes++
			if size > Small {
				s.large++
			}
			switch {
			case s.refuse > 0 && size > s.refuse:
				s.refused(size, s.now)
			case size <= s.wire.mtu && s.random.Float64() >= s.lose:
				s.answers = append(s.answers, sentProbe{nonce: nonce, at: s.now + s.delay})
			}
		}
		s.watch()
	}
}

// The search comes close to every path from below, with few large probes, and stays.
func TestProberFindsEveryMTU(t *testing.T) {
	const most = 40
	for _, refuse := range []bool{false, true} {
		for _, rtt := range []time.Duration{0, 20 * time.Millisecond, 300 * time.Millisecond, 900 * time.Millisecond} {
			for mtu := 1100; mtu <= 1500; mtu++ {
				s := newSimulation(wire{mtu: mtu, delay: rtt})
				if refuse {
					s.refuse = mtu
				}
				s.watch = func() {
					if s.Prober.mtu > mtu {
						t.Fatalf("path of %d: mtu %d", mtu, s.Prober.mtu)
					}
				}
				s.run(30 * time.Second)
				want := min(mtu, testFull)
				if mtu < Floor {
					if s.Prober.mtu != 0 {
						t.Errorf("path of %d, less than the floor, has mtu %d", mtu, s.Prober.mtu)
					}
					continue
				}
				if got := s.Prober.mtu; got > want || want-got >= sizeGap || want == testFull && got != want {
					t.Errorf("path of %d, rtt %v: mtu %d", mtu, rtt, got)
				}
				if s.large > most || s.loss() > 0 {
					t.Errorf("path of %d, rtt %v: %d large probes, loss %d %%", mtu, rtt, s.large, s.loss())
				}
				found := s.Prober.mtu
				s.watch = func() {
					if s.Prober.mtu < found || s.Prober.mtu > mtu {
						t.Fatalf("path of %d: mtu %d after %d", mtu, s.Prober.mtu, found)
					}
				}
				s.run(time.Hour)
			}
		}
	}
}

// A path that gets smaller while it is in use, without a word, is still a path; one
// that gets larger is used in full, later.
func TestProberFollowsThePath(t *testing.T) {
	for _, mtu := range []int{Floor, Floor + 1, 1180, 1220, 1280, 1392, 1405, 1418, 1419} {
		s := newSimulation(wire{mtu: 1500, delay: 10 * time.Millisecond})
		s.run(time.Minute)
		s.watch = func() {
			if s.Prober.mtu == 0 {
				t.Fatalf("given up at %v", s.now)
			}
		}
		s.wire.mtu = mtu
		s.run(probeSteady + 2*probeWait)
		if got := s.Prober.mtu; got > mtu {
			t.Errorf("path of %d: still mtu %d", mtu, got)
		}
		s.run(10 * time.Second)
		if got := s.Prober.mtu; mtu-got >= sizeGap {
			t.Errorf("path of %d: only mtu %d", mtu, got)
		}
		s.wire.mtu = 1500
		s.run(probeAgain + probeSteady + time.Second)
		if got := s.Prober.mtu; got != testFull {
			t.Errorf("path of 1500 again: mtu %d", got)
		}
	}
	s := newSimulation(wire{mtu: 1300})
	s.run(time.Minute)
	s.idle = true
	s.run(time.Minute)
	before := s.probes
	if s.run(time.Hour); s.probes > before {
		t.Errorf("%d probes of a path that nobody uses", s.probes-before)
	}
	s.idle = false
	s.wire.mtu = Floor - 1
	if s.run(20 * time.Second); s.Prober.mtu != 0 {
		t.Errorf("path of less than the floor: mtu %d", s.Prober.mtu)
	}
}

// Too narrow a path is asked less and less often.
func TestProberLeavesANarrowPathInPeace(t *testing.T) {
	s := newSimulation(wire{mtu: 1000, delay: 10 * time.Millisecond})
	s.run(time.Hour)
	before := s.probes
	if s.run(24 * time.Hour); s.probes-before > 24*6*12 {
		t.Errorf("%d probes a day", s.probes-before)
	}
	if got := s.state(s.now); got != Narrow {
		t.Errorf("it is %v", got)
	}
}

// A black hole for large packets shows within seconds where such are sent, whatever
// else gets through.
func TestProberFindsABlackHole(t *testing.T) {
	for _, rtt := range []time.Duration{time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond} {
		for _, mtu := range []int{Floor, 1220, 1300} {
			s := newSimulation(wire{mtu: 1500, delay: rtt})
			s.run(time.Minute + 3*time.Second) // a while after the last look at the size
			s.wire.mtu = mtu
			began := s.now
			for s.Prober.mtu > mtu && s.now < began+time.Minute {
				s.observe(Activity{Used: true, Large: true, Heard: s.now}, s.now)
				s.run(10 * time.Millisecond)
			}
			if took := s.now - began; took > 5*time.Second || s.Prober.mtu == 0 {
				t.Errorf("path of %d, rtt %v: mtu %d after %v", mtu, rtt, s.Prober.mtu, took)
			}
		}
	}
}

// Loss is no reason for smaller packets, and not soon one for none.
func TestProberBearsLoss(t *testing.T) {
	for _, mtu := range []int{1300, 1500} {
		s := newSimulation(wire{mtu: mtu, delay: 30 * time.Millisecond, lose: 0.2})
		want, changes, down, last := min(mtu, testFull)-sizeGap, 0, 0, 0
		var low, since time.Duration // how long it was less, and since when it is what it is
		s.watch = func() {
			if s.Prober.mtu == last {
				return
			}
			if last <= want {
				low += s.now - since
			}
			if s.Prober.mtu == 0 {
				down++
			}
			last, since = s.Prober.mtu, s.now
			changes++
		}
		const day = 24 * time.Hour
		s.run(day)
		if s.Prober.mtu <= want || s.Prober.mtu > mtu {
			t.Errorf("path of %d: mtu %d", mtu, s.Prober.mtu)
		}
		if low > day/100 || changes > 100 || down > 24 {
			t.Errorf("path of %d: less for %v of a day, %d changes, down %d times", mtu, low, changes, down)
		}
		if s.loss() < 5 || s.loss() > 40 {
			t.Errorf("loss %d %%", s.loss())
		}
	}
}

func TestProberMeasures(t *testing.T) {
	var p Prober
	for i, rtt := range []time.Duration{100, 200, 100} { // ms
		want := [][2]time.Duration{{100_000, 50_000}, {112_500, 62_500}, {110_937, 50_000}}[i] // us, by RFC 6298
		p.measure(rtt * time.Millisecond)
		if s, d := p.smooth.Truncate(time.Microsecond), p.spread; s != want[0]*time.Microsecond || i < 2 && d != want[1]*time.Microsecond {
			t.Errorf("%d: smoothed %v, deviation %v", i, s, d)
		}
		if p.rtt != rtt*time.Millisecond {
			t.Errorf("%d: last %v", i, p.rtt)
		}
	}
	tests := map[string]struct {
		answered func(n int) bool
		count    int
		want     int
	}{
		"none yet":     {func(int) bool { return true }, 1, 0},
		"all answered": {func(int) bool { return true }, 100, 0},
		"one of four":  {func(n int) bool { return n != 2 }, 5, 25},
		"every second": {func(n int) bool { return n%2 == 0 }, 101, 50},
		"those before": {func(n int) bool { return n > 68 }, 101, 3},
	}
	for name, tc := range tests {
		p := newProber(1, testFull, 1)
		p.mtu, p.proven = testFull, true
		for n := range tc.count {
			p.recent = 0
			if nonce := p.send(Floor, 1); tc.answered(n) {
				p.answered(nonce, 1)
			}
		}
		if got := p.loss(); got != tc.want {
			t.Errorf("%s: loss %d %%, want %d", name, got, tc.want)
		}
	}
}
