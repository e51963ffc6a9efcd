package gossip

import (
	"bytes"
	"math"
	"time"

	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Implementation constants. Two machines with one key would jump over each other
// for ever: once that is known the jumps become rare.
const (
	jumpPause = 10 * time.Second // doubling up to
	jumpMost  = 10 * time.Minute
)

// cloneWatch looks for another machine with this node's key.
type cloneWatch struct {
	run    member.Run // the last foreign run whose record was jumped over
	known  bool       // it is alive, or was lately
	over   uint64     // the number to jump over; 0: none
	pause  time.Duration
	before time.Time // no jump before
	seen   time.Time
}

// half is what is counted up at each start, in the upper half of a number.
func half(seq uint64) uint64 { return seq >> 32 }

// ownWorthIt reports whether a record that claims to be this node's may tell
// something: it is newer, or as new and another one. Neither can be made without
// the key, so what remains is for the signature to say.
func (c *core) ownWorthIt(s wire.Signed, seq uint64) bool {
	if seq != c.seq {
		return seq > c.seq
	}
	mine, ok := c.table.Signed(c.self)
	return ok && !bytes.Equal(mine, s)
}

// heardOwn jumps over a record of this node's that it did not write: an earlier
// life of the key came further than the saved state says, or another machine has
// the key. The second is proven when a run whose record was jumped over has
// written one above the number that was jumped to: only who is alive sees that.
func (c *core) heardOwn(r wire.Record, now time.Time) {
	run, w := r.Run, &c.clone
	if r.Seq < c.seq || run == c.run && run != (member.Run{}) {
		return
	}
	if run != (member.Run{}) {
		if w.run == run && half(r.Seq) > half(w.over) {
			w.known, w.seen = true, now
			c.table.SetCloned(c.self, now)
		}
		w.run = run
	}
	w.over = max(w.over, r.Seq)
	c.retryJump(now)
}

// retryJump jumps if there is something to jump over, and it is time.
func (c *core) retryJump(now time.Time) {
	w := &c.clone
	if w.known && now.Sub(w.seen) > 2*jumpMost {
		*w = cloneWatch{over: w.over}
	}
	if w.over < c.seq || w.over == 0 || now.Before(w.before) {
		return
	}
	c.seq = over(w.over)
	if w.known {
		w.pause = min(max(2*w.pause, jumpPause), jumpMost)
		w.before = now.Add(w.pause)
	}
	if !c.published.IsZero() && !c.left {
		c.out.err = c.renew(c.own, now)
	}
}

// over is the first number above seq that no run of an author has counted to: the
// beginning of the next upper half. In the last one there is only the next.
func over(seq uint64) uint64 {
	if half(seq) == math.MaxUint32 {
		return seq
	}
	return (half(seq) + 1) << 32
}
