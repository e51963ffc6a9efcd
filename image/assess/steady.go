package assess

import (
	"fmt"
	"time"
)

// Settle is how long a good boot must stay good: a daemon that ends again and
// again answers well in between.
const Settle = 30 * time.Second

// Steady holds a good finding back until it has held for a time (Settle) without
// a unit having been restarted. It is not safe for concurrent use.
type Steady struct {
	For time.Duration

	good     bool
	since    time.Duration // on the Clock
	seen     time.Duration // on the Clock: the machine was looked at
	restarts map[string]int
}

// Blind is the finding when a look at the machine failed with err. That is no word
// against the machine, since a busy one answers late, nor does it end a good time. A
// boot is bad when after its limit nothing was seen for twice as long as a good one
// must hold.
func (s *Steady) Blind(err error, c Clock) Finding {
	if c.Elapsed < c.Limit || c.Elapsed-s.seen < 2*s.For {
		return Finding{Verdict: Waiting, Reason: "waiting to see how this machine is: " + err.Error()}
	}
	return Finding{Verdict: Bad, Reason: fmt.Sprintf("after %s it still cannot be seen how this machine is: %v", c.Limit, err)}
}

// Hold returns f, or a waiting one in place of a good one that has not held for
// long. It comes to an end: a unit that is still restarted well after the limit
// makes the boot bad.
func (s *Steady) Hold(f Finding, units []Unit, c Clock) Finding {
	s.seen = c.Elapsed
	if f.Verdict != Good {
		s.good = false
		return f
	}
	restarted := ""
	for _, u := range units {
		if s.good && u.Restarts != s.restarts[u.Name] {
			restarted = fmt.Sprintf("%s does not stay up: it was restarted %d times", u.Name, u.Restarts)
		}
	}
	if !s.good || restarted != "" {
		s.good, s.since, s.restarts = true, c.Elapsed, map[string]int{}
		for _, u := range units {
			s.restarts[u.Name] = u.Restarts
		}
	}
	switch {
	case c.Elapsed-s.since >= s.For:
		return f
	case restarted != "" && c.Elapsed >= c.Limit+2*s.For:
		return Finding{Verdict: Bad, Reason: restarted, Hint: "see `journalctl -b -p warning`"}
	}
	return Finding{Verdict: Waiting, Reason: fmt.Sprintf("for %s it must stay so: %s", s.For, f.Reason)}
}
