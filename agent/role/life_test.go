package role

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/store"
)

// life is a machine in everyday life whose k3s behaves badly. Turns follow each other
// every lifeTurn, as they do for an agent that has nothing else to do.
//
//	process(number, age) ──> facts ──Watch, Backoff──> Plan ──> actions
type life struct {
	walk
	now     time.Duration
	process func(n int, age time.Duration) state    // of the n-th process, from 1
	node    func(n int, age time.Duration) Presence // of its Node object; nil: nobody can tell
	n       int
	born    time.Duration
	watch   Watch
	backoff Backoff

	starts, restarts []time.Duration
	told             map[string]int // turns in which it was told, by kind
}

const lifeTurn = 10 * time.Second

// state is what k3s does.
type state uint8

const (
	well state = iota
	silent
	exited
)

// newLife makes the life of a machine that has run for long.
func newLife(r store.Role, process func(int, time.Duration) state) *life {
	l := &life{walk: walk{f: running(r)}, process: process, n: 1, told: map[string]int{}}
	l.f.Published = nil
	return l
}

// observe makes the facts of this turn.
func (l *life) observe() {
	f := &l.f
	if f.K3s.Container == Present {
		s := l.process(l.n, l.now-l.born)
		f.K3s.Running, f.K3s.Ready = s != exited, s == well
	}
	pid := uint32(0)
	if f.K3s.Running {
		pid = uint32(l.n)
	}
	f.K3s.Node = Unknown
	if f.K3s.Ready && l.node != nil {
		f.K3s.Node = l.node(l.n, l.now-l.born)
	}
	if f.K3s.Ready {
		l.backoff.Worked(time.Unix(0, 0).Add(l.now))
	}
	l.watch, f.K3s = l.watch.Look(l.now, pid, *f)
}

// turn is one turn of an agent.
func (l *life) turn(t *testing.T) {
	t.Helper()
	l.observe()
	for _, a := range Plan(l.f) {
		switch a := a.(type) {
		case Note:
			if a.Code == health.CodeK3sFailing && a.Grave {
				l.told["error"]++
			} else if a.Code == health.CodeK3sFailing {
				l.told["warning"]++
			}
		case Restart:
			l.restarts = append(l.restarts, l.now)
			l.watch = l.watch.Restarted(a)
			l.do(a)
		case StartServer, StartWorker:
			l.start(t, a)
		case Stop, WithdrawNetwork, ApplyNetwork, WriteMarker, Save:
			t.Fatalf("at %s: %s: pods are touched, or the machine is another", l.now, brief(a))
		}
	}
	l.now += lifeTurn
}

// start runs the next process, as the agent does: not before the back-off allows it.
func (l *life) start(t *testing.T, a Action) {
	t.Helper()
	if s, ok := a.(StartServer); ok && s.First {
		t.Fatalf("at %s: makes the cluster anew", l.now)
	}
	now := time.Unix(0, 0).Add(l.now)
	if l.f.K3s.Container == Present { // it has ended
		if now.Before(l.backoff.Next) {
			return
		}
		l.backoff.Failed(now, nil)
	}
	pods := l.f.AppliedPodCIDR
	l.do(a)
	l.f.AppliedPodCIDR = pods
	l.n, l.born = l.n+1, l.now
	l.starts = append(l.starts, l.now)
}

func (l *life) run(t *testing.T, d time.Duration) {
	t.Helper()
	for end := l.now + d; l.now < end; {
		l.turn(t)
	}
}

// hangs is a k3s that hangs for good after a time, in each of the first processes.
func hangs(processes int, after time.Duration) func(int, time.Duration) state {
	return func(n int, age time.Duration) state {
		if n <= processes && age >= after {
			return silent
		}
		return well
	}
}

// What becomes of a k3s that ends, hangs or is slow within a day (fault A10: one whose
// process lived and whose API was silent was left alone for ever).
func TestLife(t *testing.T) {
	const never = 1 << 30
	both := []store.Role{store.Server, store.Worker}
	for _, tc := range []struct {
		name     string
		roles    []store.Role
		process  func(int, time.Duration) state
		restarts [2]int // at least and at most, in a day
		starts   [2]int
		ready    bool // in the end
		tells    string
	}{
		{"is well", both, hangs(0, 0), [2]int{}, [2]int{}, true, ""},
		{"hangs once: mended by one restart", both, hangs(1, time.Hour), [2]int{1, 1}, [2]int{1, 1}, true, "warning"},
		{"hangs three times", both, hangs(3, 30*time.Minute), [2]int{3, 3}, [2]int{3, 3}, true, "error"},
		{"is silent after each start: ever more seldom", both, hangs(never, 0), [2]int{8, 15}, [2]int{8, 15}, false, "error"},
		{"hangs a while after each start", both, hangs(never, 2*time.Minute), [2]int{10, 30}, [2]int{10, 30}, false, "error"},
		{"is silent for four minutes each hour", both, func(_ int, age time.Duration) state {
			if at := age % time.Hour; at > 20*time.Minute && at < 24*time.Minute {
				return silent
			}
			return well
		}, [2]int{}, [2]int{}, true, ""},
		{"ends once, and takes twelve minutes to start", both, func(n int, age time.Duration) state {
			switch {
			case n == 1 && age > time.Hour:
				return exited
			case n == 2 && age < 12*time.Minute:
				return silent
			}
			return well
		}, [2]int{}, [2]int{1, 1}, true, ""},
		{"needs forty minutes for each start: gets them in the end", both, func(_ int, age time.Duration) state {
			if age < 40*time.Minute {
				return silent
			}
			return well
		}, [2]int{2, 2}, [2]int{2, 2}, true, "error"},
		{"ends at once, whenever it is started", both, func(int, time.Duration) state { return exited }, [2]int{}, [2]int{1000, 1500}, false, ""},
		{"hangs, and then ends at once", both, func(n int, age time.Duration) state {
			if n == 1 {
				return silent
			}
			return exited
		}, [2]int{1, 1}, [2]int{1000, 1500}, false, ""},
	} {
		for _, r := range tc.roles {
			t.Run(tc.name+"/"+string(r), func(t *testing.T) {
				l := newLife(r, tc.process)
				l.run(t, 24*time.Hour)
				l.observe()
				within := func(what string, n int, bounds [2]int) {
					if n < bounds[0] || n > bounds[1] {
						t.Errorf("%d %s, want %v", n, what, bounds)
					}
				}
				within("restarts", len(l.restarts), tc.restarts)
				within("starts", len(l.starts), tc.starts)
				if l.f.K3s.Ready != tc.ready || tc.tells == "" != (len(l.told) == 0) || tc.tells != "" && l.told[tc.tells] == 0 {
					t.Errorf("ready %v, told %v; want %v and %q", l.f.K3s.Ready, l.told, tc.ready, tc.tells)
				}
				t.Logf("RESULT %d restarts, %d starts, told in turns %v", len(l.restarts), len(l.starts), l.told)
			})
		}
	}
}

// When a restart comes, and how the word about it ends.
func TestHangIsMendedInTime(t *testing.T) {
	l := newLife(store.Server, hangs(1, time.Hour))
	l.run(t, time.Hour+silentLimit-lifeTurn)
	if len(l.restarts) != 0 {
		t.Fatalf("too early: %v", l.restarts)
	}
	l.run(t, 2*lifeTurn)
	if len(l.restarts) != 1 {
		t.Fatalf("not in time: %v", l.restarts)
	}
	l.run(t, forgiven-time.Minute)
	if l.told["error"] != 0 || l.told["warning"] < 300 {
		t.Errorf("told in turns %v", l.told)
	}
	before := l.told["warning"]
	l.run(t, 10*time.Minute)
	if d := l.told["warning"] - before; d > 10 {
		t.Errorf("still told %d turns after it was forgiven", d)
	}
}

// Each restart in a row waits longer than the one before, up to a bound.
func TestRestartsBackOff(t *testing.T) {
	l := newLife(store.Server, hangs(1<<30, 0))
	l.run(t, 24*time.Hour)
	var gaps []time.Duration
	for i := range l.restarts[1:] {
		gaps = append(gaps, l.restarts[i+1]-l.restarts[i])
	}
	if !slices.IsSorted(gaps) || gaps[0] < 2*risingLimit || gaps[len(gaps)-1] < longestLimit || gaps[len(gaps)-1] > longestLimit+time.Minute {
		t.Errorf("restarts after %v", gaps)
	}
}

// What excuses a silence.
func TestExcused(t *testing.T) {
	for _, tc := range []struct {
		name string
		role store.Role
		with func(*Facts)
	}{
		{"a worker whose server is away", store.Worker, func(f *Facts) { f.Servers[0].Connected = false }},
		{"a worker that sees no server", store.Worker, func(f *Facts) { f.Servers = nil }},
		{"the overlay is away", store.Server, func(f *Facts) { f.OverlayUp = false }},
		{"containerd is away", store.Server, func(f *Facts) { f.K3s.Container, f.K3s.Running = Unknown, false }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLife(tc.role, hangs(1, time.Hour))
			l.run(t, time.Hour)
			was := l.f
			was.Servers = slices.Clone(l.f.Servers)
			tc.with(&l.f)
			l.run(t, 5*time.Hour)
			if len(l.restarts) != 0 {
				t.Errorf("restarted %v", l.restarts)
			}
			// Once the excuse is gone, the silence counts.
			l.f = was
			l.run(t, silentLimit+time.Minute)
			if len(l.restarts) != 1 {
				t.Errorf("restarted %v after the excuse was gone", l.restarts)
			}
		})
	}
}

// An agent that stood still has not seen a silence.
func TestWatchCountsWhatItSaw(t *testing.T) {
	f := running(store.Server)
	var w Watch
	w, _ = w.Look(0, 1, f)
	f.K3s.Ready = false
	w, k := w.Look(10*time.Hour, 1, f)
	if s := k.Silence; s.For > longestStep || !s.Answered {
		t.Errorf("one look after ten hours: %+v", s)
	}
	if _, k = w.Look(10*time.Hour+lifeTurn, 1, f); k.Silence.For != longestStep+lifeTurn {
		t.Errorf("the next look: %+v", k.Silence)
	}
	if _, k = w.Look(11*time.Hour, 2, f); k.Silence.For != 0 || k.Silence.Answered {
		t.Errorf("another process: %+v", k.Silence)
	}
}

// A Node object that somebody deletes is back after one restart of k3s (fault T1). Who
// deletes it again and again, or a cluster that never takes it, does not keep k3s from
// running. One that nobody could look at is not missing.
func TestDeletedNodeComesBack(t *testing.T) {
	for _, tt := range []struct {
		name   string
		node   func(life int, since time.Duration) Presence // of the n-th k3s
		within time.Duration                                // of the first restart
		most   int                                          // restarts in a day
	}{
		{"deleted once", func(n int, at time.Duration) Presence {
			return PresenceOf(n > 1 && at > 20*time.Second || n == 1 && at < time.Hour, nil)
		}, time.Hour + 2*lifeTurn, 1},
		{"deleted each time", func(_ int, at time.Duration) Presence {
			return PresenceOf(at > 20*time.Second && at < time.Minute, nil)
		}, time.Minute + 2*lifeTurn, 20},
		{"never registered", func(int, time.Duration) Presence { return Absent }, registering + 2*lifeTurn, 20},
		{"registers slowly", func(_ int, at time.Duration) Presence { return PresenceOf(at > registering-lifeTurn, nil) }, never, 0},
		{"nobody can tell", func(int, time.Duration) Presence { return Unknown }, never, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLife(store.Worker, func(int, time.Duration) state { return well })
			l.node = tt.node
			l.run(t, 24*time.Hour)
			if len(l.restarts) > tt.most || tt.most > 0 && (len(l.restarts) == 0 || l.restarts[0] > tt.within) {
				t.Errorf("restarted at %v, want the first by %s and %d at most", l.restarts, tt.within, tt.most)
			}
		})
	}
}

const never = time.Duration(math.MaxInt64)

// What a person reads about a k3s that hangs.
func TestHangIsTold(t *testing.T) {
	for _, tc := range []struct {
		restarts int
		ready    bool
		want     string
		grave    bool
	}{
		{1, false, "k3s did not answer and was restarted", false},
		{2, false, "does not answer, although it was restarted 2 times; pods here keep running", true},
		{3, true, "restarted (3 times in a row); it answers again", false},
	} {
		f := running(store.Server)
		f.K3s.Ready, f.K3s.Silence.Restarts = tc.ready, tc.restarts
		told := 0
		for _, a := range Plan(f) {
			if n, ok := a.(Note); ok {
				told++
				if !strings.Contains(n.Reason, tc.want) || n.Grave != tc.grave || n.Code != health.CodeK3sFailing || !strings.Contains(n.Hint, "k3s.log") {
					t.Errorf("%d restarts: %+v", tc.restarts, n)
				}
			}
		}
		if told != 1 {
			t.Errorf("%d restarts: told %d things", tc.restarts, told)
		}
	}
}
