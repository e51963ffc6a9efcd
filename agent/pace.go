package agent

import "time"

// Pauses of the loop. News wakes it earlier.
const (
	nextPause = 50 * time.Millisecond
	busyPause = time.Second      // something is being brought about
	idlePause = 10 * time.Second // nothing to do, or nothing that helps
	maxQuick  = 10               // turns after nextPause in a row
	maxEager  = 120              // turns after busyPause for a k3s that does not come up
)

// pace says when the loop turns next. It is only about how much work a machine
// makes of a state that lasts: each turn asks containerd, k3s and the overlay.
type pace struct {
	quick    int    // turns in a row that changed something
	settling int    // turns in a row that waited for k3s
	failure  string // what failed in the last turn
	failures int    // turns in a row with that failure
}

// after returns the pause after a turn. A step that fails in the same way each time
// is tried less and less often, but not later than retry, where that is ahead.
func (p *pace) after(o outcome, settling bool, retry time.Duration) time.Duration {
	p.quick++
	if !o.again {
		p.quick = 0
	}
	p.settling++
	if !settling {
		p.settling = 0
	}
	if o.failure != p.failure {
		p.failure, p.failures = o.failure, 0
	}
	switch {
	case o.again && !o.busy && p.quick < maxQuick:
		return nextPause
	case o.failure != "":
		p.failures++
		pause := min(busyPause<<min(p.failures-1, 4), idlePause)
		if retry > 0 {
			pause = min(pause, retry)
		}
		return pause
	case o.again, o.busy, settling && p.settling < maxEager:
		return busyPause
	}
	return idlePause
}
