package gossip

import (
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Implementation constants of comparing tables.
const (
	// exchangeTimeout is how long one exchange may keep others waiting.
	exchangeTimeout = 2 * time.Second
	// A difference may be a change that is on its way: who does not know that it
	// lacks members looks again first, after a pause of lookAgain up to its double.
	lookAgain = time.Second
	// After an exchange that brought nothing the peer is left alone, doubling.
	quietAfter = 10 * time.Second
	quietMost  = 10 * time.Minute
	// A request that is repeated while nothing has changed is not answered again for
	// so long: an answer is only lost with its stream, and that is told.
	repeatAfter = 10 * time.Minute
	// Answers to one peer: at once the whole table and a bit, then as much again
	// for each creditTime.
	creditExtra = 64 << 10 // bytes
	creditTime  = time.Minute
)

// exchange is the one comparison that this node leads. One at a time, since what
// the first peer tells need not be asked of all others: with each of them a summary
// then is enough.
type exchange struct {
	with      *peer // nil: none
	deadline  time.Time
	useful    bool
	completed uint64

	next      time.Time          // none of the differing is due before
	differing map[*peer]struct{} // peers with a difference
	retries   map[*peer]struct{} // peers whose stream broke
}

// pending reports whether work has something to do later.
func (c *core) pending() bool {
	return c.exchange.with != nil || len(c.exchange.differing) > 0 || len(c.exchange.retries) > 0
}

// heardSummary compares with a peer's summary. Equal ones need no answer.
func (c *core) heardSummary(from identity.ID, theirs wire.Summary, now time.Time) {
	p := c.byID[from]
	if p == nil {
		return
	}
	if c.exchange.with == p {
		c.finish(now)
	}
	fresh := p.fresh
	p.fresh = false
	mine := c.table.Summary()
	if mine == theirs {
		c.agree(p)
		p.rechecked, p.fruitless, p.quiet = false, 0, time.Time{}
		return
	}
	if p.differs != nil {
		return // to be dealt with already: saying it again changes nothing
	}
	d := &difference{due: now, completed: c.exchange.completed}
	// One side begins: who knows less, since it profits most, and its digest is the
	// smaller one. Of equals it is one of both, if the difference cannot be news.
	d.eager = mine.Count < theirs.Count || fresh && mine.Count == theirs.Count && c.self.Compare(p.id) < 0
	if !d.eager {
		d.due = now.Add(lookAgain + time.Duration(c.rng.Int64N(int64(lookAgain))))
	}
	if p.quiet.After(d.due) {
		d.due = p.quiet
	}
	p.differs = d
	if len(c.exchange.differing) == 0 || d.due.Before(c.exchange.next) {
		c.exchange.next = d.due
	}
	c.exchange.differing[p] = struct{}{}
}

// agree ends a difference.
func (c *core) agree(p *peer) {
	p.differs = nil
	delete(c.exchange.differing, p)
}

// finish ends the exchange.
func (c *core) finish(now time.Time) {
	p := c.exchange.with
	if c.exchange.useful {
		p.fruitless, p.quiet = 0, time.Time{}
	} else {
		p.fruitless++
		p.quiet = now.Add(min(quietAfter<<min(p.fruitless-1, 10), quietMost))
	}
	c.exchange.with = nil
	c.exchange.completed++
}

// work does what has become due: streams that are opened again, and differences.
func (c *core) work(now time.Time) {
	for p := range c.exchange.retries {
		if !now.Before(p.retry) {
			delete(c.exchange.retries, p)
			c.wake(p)
		}
	}
	if c.exchange.with != nil && !now.Before(c.exchange.deadline) {
		c.finish(now)
	}
	for c.exchange.with == nil {
		p := c.nextDifference(now)
		if p == nil {
			return
		}
		d := p.differs
		p.differs = nil
		delete(c.exchange.differing, p)
		c.wake(p)
		if d.eager && d.completed == c.exchange.completed || p.rechecked {
			p.digest, p.rechecked = true, false
			c.exchange.with, c.exchange.useful = p, false
			c.exchange.deadline = now.Add(exchangeTimeout)
			return
		}
		p.summary, p.rechecked = true, true
	}
}

// nextDifference picks one of the peers whose time has come, at random: all who
// lack the same must not ask the same one.
func (c *core) nextDifference(now time.Time) *peer {
	var chosen *peer
	if len(c.exchange.differing) == 0 || now.Before(c.exchange.next) {
		return nil
	}
	found, next := 0, now.Add(quietMost)
	for _, p := range c.peers {
		if p.differs == nil {
			continue
		}
		if now.Before(p.differs.due) {
			if p.differs.due.Before(next) {
				next = p.differs.due
			}
			continue
		}
		found++
		if c.rng.IntN(found) == 0 {
			chosen = p
		}
	}
	if chosen == nil {
		c.exchange.next = next
	}
	return chosen
}

// compare sends a summary to one random peer.
func (c *core) compare() {
	if len(c.peers) > 0 {
		p := c.peers[c.rng.IntN(len(c.peers))]
		p.summary = true
		c.wake(p)
	}
}

// heardDigest answers with what the peer lacks, asks for what it has more, and
// ends with a summary.
func (c *core) heardDigest(from identity.ID, d wire.Digest, now time.Time) {
	p := c.byID[from]
	if p == nil || c.repeated(p, hashDigest(d), now) {
		return
	}
	diff := c.table.Compare(from, d)
	for _, id := range diff.Missing {
		c.owe(p, id, now)
	}
	p.want = diff.Wanted
	p.summary = true
	c.wake(p)
}

// heardWant sends what is asked for.
func (c *core) heardWant(from identity.ID, w wire.Want, now time.Time) {
	p := c.byID[from]
	if p == nil || c.repeated(p, hashWant(w), now) {
		return
	}
	if c.exchange.with == p && len(w) > 0 {
		c.exchange.useful = true
	}
	for _, id := range w {
		c.owe(p, id, now)
	}
	p.summary = true
	c.wake(p)
}

// repeated notes a request, and reports whether it is the last one again.
func (c *core) repeated(p *peer, hash uint64, now time.Time) bool {
	r := request{hash: hash, version: c.table.Version(), when: now}
	if p.asked.hash == r.hash && p.asked.version == r.version && now.Sub(p.asked.when) < repeatAfter {
		return true
	}
	p.asked = r
	return false
}

// allowance is what one peer may have as answers in creditTime, in bytes.
func (c *core) allowance() int { return c.table.Bytes() + creditExtra }

// owe has a record sent as an answer, as far as the peer's credit goes. What it
// does not get the next comparison finds.
func (c *core) owe(p *peer, id identity.ID, now time.Time) {
	if _, due := p.dirty[id]; due {
		return
	}
	signed, ok := c.table.Signed(id)
	if !ok {
		return
	}
	most := c.allowance()
	if gained := int(float64(most) * min(1, now.Sub(p.credited).Seconds()/creditTime.Seconds())); gained > 0 {
		p.credit, p.credited = min(p.credit+gained, most), now
	}
	if p.credit < len(signed) {
		return
	}
	p.credit -= len(signed)
	c.send(p, id)
}
