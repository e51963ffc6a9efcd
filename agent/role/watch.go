package role

import (
	"fmt"
	"time"

	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/store"
)

// Bounds of a k3s whose process lives and which does not answer.
const (
	// silentLimit is for one that has answered before. It is how long Kubernetes waits
	// before it gives up the pods of a node that is silent, and longer than what passes by
	// itself: a datastore that is compacted, a machine that swaps.
	silentLimit = 5 * time.Minute
	// risingLimit is for a process that has not answered yet: after a power cut it may
	// have a datastore to replay, from a slow disk.
	risingLimit = 15 * time.Minute
	// longestLimit ends the doubling of both. One restart in two hours costs less than
	// a machine that nobody looks at and that would be well after it.
	longestLimit = 2 * time.Hour
	// forgiven is how long k3s must answer before earlier restarts are forgotten.
	forgiven = time.Hour
	// longestStep is the most that one look adds to a silence: what an agent that stood
	// still itself has not seen was not silence.
	longestStep = time.Minute
)

// Silence is what is known of a k3s that runs, besides its state of this moment.
type Silence struct {
	For      time.Duration // it has not answered for so long, though nothing excuses it
	Answered bool          // this process has answered before
	Restarts int           // how often k3s was restarted for it, since it last was well for long
}

// limit is how long k3s may be silent before it is restarted, doubled by each restart
// that did not help: where none does, they become rare, and a start that takes long
// gets the time that it needs.
func (s Silence) limit() time.Duration {
	limit := risingLimit
	if s.Answered {
		limit = silentLimit
	}
	return min(limit<<min(s.Restarts, 8), longestLimit)
}

// Watch follows k3s over the turns. It is a value; the zero Watch has seen nothing.
type Watch struct {
	silence Silence
	pid     uint32
	seen    bool
	last    time.Duration // when it was looked at
	well    time.Duration // how long it has answered without a break
	missing Missing
	there   time.Duration // how long Kubernetes has known the node without a break
}

// Look takes in the facts of one turn: now is of any one monotonic clock, pid that of
// k3s. It returns Facts.K3s with what is known from earlier turns.
func (w Watch) Look(now time.Duration, pid uint32, f Facts) (Watch, K3s) {
	w = w.look(now, pid, f)
	f.K3s.Silence, f.K3s.Missing = w.silence, w.missing
	return w, f.K3s
}

func (w Watch) look(now time.Duration, pid uint32, f Facts) Watch {
	step := min(now-w.last, longestStep)
	if !w.seen || w.pid != pid {
		step = 0
	}
	w.last, w.seen = now, true
	k := f.K3s
	switch {
	case k.Container == Unknown: // nor is anything known of its process
		return w
	case !k.Running || w.pid != pid:
		w.pid, w.well = pid, 0
		w.silence = Silence{Restarts: w.silence.Restarts, Answered: k.Running && k.Ready}
		w.missing = Missing{Restarts: w.missing.Restarts}
	case k.Ready:
		w.well += step
		w.silence.For, w.silence.Answered = 0, true
	default:
		w.well = 0
		if !excused(f) {
			w.silence.For += step
		}
	}
	if w.well >= forgiven {
		w.silence.Restarts = 0
	}
	w.lookForNode(k, step)
	return w
}

// Restarted notes that k3s was stopped, and why.
func (w Watch) Restarted(why Restart) Watch {
	if why.Missing {
		w.missing.Restarts++
	} else {
		w.silence.Restarts++
	}
	return w
}

// excused reports whether k3s may well be silent for a reason that a restart does not
// take away: a worker waits for a server to register with, and a server answers on
// the overlay's address.
func excused(f Facts) bool {
	p := planner{f: f, st: f.State}
	return !f.OverlayUp || f.State.Role == store.Worker && p.server(func(s Server) bool { return s.Connected }) == nil
}

// awaitK3s deals with a k3s that does not answer: what is is told from the first
// restart on, and becomes an error where one did not help. Pods are not touched, since
// they run beside k3s, and their network stays as it is.
func (p *planner) awaitK3s(what string) {
	k := &p.f.K3s
	s := k.Silence
	if k.Running {
		p.tellRestarts() // of one that has ended, the end is to be told
	}
	if k.Running && !k.Stale && !excused(p.f) && s.For >= s.limit() {
		p.do(Restart{Reason: "its process lives and has not answered for " + s.For.Round(time.Minute).String()})
		p.wait("", "restarting k3s, which does not answer; pods here keep running", logHint)
		return
	}
	p.wait("", what, logHint)
}

// tellRestarts tells of a k3s that had to be restarted for its silence. The number
// changes with each, so that the journal has them all.
func (p *planner) tellRestarts() {
	k := &p.f.K3s
	n := k.Silence.Restarts
	switch {
	case n == 0:
	case k.Ready:
		p.note(health.CodeK3sFailing, "k3s did not answer and was restarted ("+times(n)+" in a row); it answers again", logHint+" for what it did before")
	case n == 1:
		p.note(health.CodeK3sFailing, "k3s did not answer and was restarted", logHint)
	default:
		p.do(Note{Code: health.CodeK3sFailing, Grave: true, Reason: "k3s runs and does not answer, although it was restarted " + times(n) + "; pods here keep running",
			Hint: logHint + ", and whether the disk of /var is full, slow or failing; the next restart is tried later each time, at most 2h apart"})
	}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
