package dial

import "time"

// A machine that is short of time answers late, and so do its own dials: more of them
// at once make all of them fail. Next is then called later than it asked for, which
// says so: a peer that does not answer makes nothing late.
const (
	late     = 20 * time.Millisecond // up to which nothing is wrong
	lateHalf = time.Second           // in which lateness is half forgotten
	lateWait = 8                     // times which a wait for an answer is longer

	firstSlots = 16
	ramp       = 256 // slots more a second
)

// lateness is how late Next was called lately.
type lateness struct {
	most  time.Duration
	at    time.Duration // when that was
	asked time.Duration // for when Next asked to be called
	idle  time.Duration // when no dial was under way last
}

// note takes the time of a call.
func (l *lateness) note(now time.Duration) {
	l.most, l.at = l.now(now), now
	if l.asked > 0 {
		l.most = max(l.most, now-l.asked)
	}
}

// now is what is left of it.
func (l *lateness) now(now time.Duration) time.Duration {
	if l.most <= 0 {
		return 0
	}
	left := float64(l.most) / (1 + float64(now-l.at)/float64(lateHalf))
	if time.Duration(left) <= late {
		return 0
	}
	return time.Duration(left)
}

// slots is how many of n dials may be under way: few at first, so that it shows
// whether they make this machine late.
func (l *lateness) slots(n int, now time.Duration) int {
	begun := firstSlots + int((now-l.idle)*ramp/time.Second)
	if d := l.now(now); d > 0 {
		begun = int(int64(begun) * int64(late) / int64(d))
	}
	return min(max(begun, 2), n)
}

// patience is how much longer than usual to wait for an answer.
func (l *lateness) patience(now time.Duration) time.Duration { return lateWait * l.now(now) }
