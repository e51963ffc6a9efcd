package gossip

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Implementation constants.
const (
	fanout    = 3 // peers that a heard change is passed on to
	smallMesh = 4 // up to this many peers it goes to all
	// A refresh only keeps alive whoever is not connected, and an hour of it may
	// be missed.
	fanoutRefresh = 1

	reopenAfter = time.Second // after a broken stream, doubling up to
	reopenMost  = 30 * time.Second
)

// core decides everything: messages, the mesh's events and the time go in, what
// is to be done comes out (outcome). It does no I/O, has no lock and belongs to
// one goroutine at a time.
type core struct {
	key     identity.Key
	self    identity.ID
	run     member.Run
	refresh time.Duration
	table   *member.Table
	rng     *rand.Rand

	own       wire.Record // as published last
	published time.Time   // zero before the first Publish
	left      bool
	seq       uint64 // of the last own record
	clone     cloneWatch

	peers    []*peer // connected, in no order
	byID     map[identity.ID]*peer
	exchange exchange

	out outcome
}

// outcome is what others are to do after a turn of the core.
type outcome struct {
	due     map[*peer]struct{}                // something can be sent to them
	tell    map[identity.ID]*[]netip.AddrPort // what the mesh is to learn; nil: to forget
	refused uint64                            // records
	err     error                             // of publishing again what was published
}

// newCore has no peers and has published nothing.
func newCore(cfg Config, rng *rand.Rand) *core {
	return &core{
		key: cfg.Key, self: cfg.Key.ID(), refresh: cfg.Refresh, rng: rng,
		table: member.New(cfg.Key.ID(), cfg.Limits),
		seq:   uint64(cfg.Incarnation) << 32,
		byID:  make(map[identity.ID]*peer),
		run:   cfg.Run,
		out:   outcome{due: make(map[*peer]struct{})},
		exchange: exchange{
			differing: make(map[*peer]struct{}), retries: make(map[*peer]struct{}),
		},
	}
}

// publish makes r the own record, unless it says what the present one says.
func (c *core) publish(r wire.Record, now time.Time) error {
	if c.left {
		return fmt.Errorf("publish: %w", ErrLeft)
	}
	if r.Run = c.run; !c.published.IsZero() && c.own.Same(r) {
		return nil
	}
	return c.renew(r, now)
}

// renew signs r with the next number and has it sent to everybody.
func (c *core) renew(r wire.Record, now time.Time) error {
	if c.seq == math.MaxUint64 {
		return errors.New("publish: the sequence numbers of this key are used up: remove the identity key and start again")
	}
	// What the caller still holds must not change under the comparison above.
	r.Addrs, r.Underlay, r.Prefixes = slices.Clone(r.Addrs), slices.Clone(r.Underlay), slices.Clone(r.Prefixes)
	r.Annotations, r.Credential, r.Unknown = maps.Clone(r.Annotations), slices.Clone(r.Credential), slices.Clone(r.Unknown)
	r.ID, r.Seq = c.self, c.seq+1
	signed, err := wire.Seal(c.key, r)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	v, err := member.Verify(signed)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if _, err := c.table.Merge(v, now); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	c.seq, c.own, c.published = r.Seq, r, now
	for _, p := range c.peers {
		c.send(p, c.self)
	}
	return nil
}

// leave publishes a goodbye; nothing can be published after it. Each of the
// returned channels is closed when a peer has read everything, or is gone.
func (c *core) leave(now time.Time) ([]chan struct{}, error) {
	if c.left || c.published.IsZero() {
		c.left = true
		return nil, nil
	}
	goodbye := c.own
	goodbye.Left = true
	err := c.renew(goodbye, now)
	c.left = true
	var readers []chan struct{}
	for _, p := range c.peers {
		if p.leaving == nil {
			p.leaving = make(chan struct{})
		}
		readers = append(readers, p.leaving)
	}
	return readers, err
}

// send has the newest record of id sent to p.
func (c *core) send(p *peer, id identity.ID) {
	p.mark(id)
	c.wake(p)
}

// wake has looked what is due to p.
func (c *core) wake(p *peer) { c.out.due[p] = struct{}{} }

// up begins with a peer: our own record and a summary go at once.
func (c *core) up(id identity.ID, now time.Time) {
	c.down(id, now)
	p := &peer{id: id, index: len(c.peers), fresh: true, summary: true, credit: c.allowance(), credited: now}
	c.peers, c.byID[id] = append(c.peers, p), p
	c.table.SetConnected(id, true, now)
	if !c.published.IsZero() {
		p.mark(c.self)
	}
	c.wake(p)
}

// moved says that what was sent to a peer lately may be lost.
func (c *core) moved(id identity.ID) {
	p := c.byID[id]
	if p == nil {
		return
	}
	p.broken, p.retry = 0, time.Time{}
	c.lost(p)
	c.wake(p)
}

// lost has p told again what nobody but this node may tell it, and compare the rest.
func (c *core) lost(p *peer) {
	if !c.published.IsZero() {
		p.mark(c.self)
	}
	p.summary, p.asked = true, request{}
}

// down ends with a peer.
func (c *core) down(id identity.ID, now time.Time) {
	p := c.byID[id]
	if p == nil {
		return
	}
	c.swap(p.index, len(c.peers)-1)
	c.peers[len(c.peers)-1] = nil
	c.peers = c.peers[:len(c.peers)-1]
	delete(c.byID, id)
	delete(c.out.due, p)
	c.agree(p)
	delete(c.exchange.retries, p)
	if c.exchange.with == p {
		c.exchange.with = nil
	}
	if p.leaving != nil {
		close(p.leaving)
		p.leaving = nil
	}
	c.table.SetConnected(id, false, now)
}

// take returns what can be sent to p now, and takes it as sent.
func (c *core) take(p *peer, now time.Time) batch {
	var b batch
	if p.busy || now.Before(p.retry) {
		return b
	}
	size := 0
	for _, id := range c.inOrder(p.dirty) {
		signed, ok := c.table.Signed(id)
		if ok && !wire.DeltaHolds(len(b.delta), size, signed) {
			break
		}
		p.knows(id)
		if ok {
			b.delta, size = append(b.delta, signed), size+2+len(signed)
		}
	}
	b.want, p.want = p.want, nil
	// A summary ends an exchange: it follows all that was asked for.
	if p.dirty == nil && p.digest {
		b.digests, p.digest = c.table.Digests(), false
	}
	if p.dirty == nil && p.summary {
		s := c.table.Summary()
		b.summary, p.summary = &s, false
	}
	b.last = p.leaving != nil && !p.due()
	p.busy = !b.empty() || b.last
	return b
}

// inOrder returns this member's ID first, the others sorted.
func (c *core) inOrder(ids map[identity.ID]struct{}) []identity.ID {
	if len(ids) == 0 {
		return nil
	}
	return slices.SortedFunc(maps.Keys(ids), func(a, b identity.ID) int {
		switch {
		case a == b:
			return 0
		case a == c.self:
			return -1
		case b == c.self:
			return 1
		}
		return a.Compare(b)
	})
}

// sent says what became of the batch that take returned.
func (c *core) sent(p *peer, b batch, err error, now time.Time) {
	if c.byID[p.id] != p {
		return
	}
	p.busy = false
	switch {
	case err != nil:
		// Nobody knows what was lost with the stream; a comparison tells, but for those
		// who are gone.
		c.lost(p)
		for _, s := range b.delta {
			if id, _, ok := s.Head(); ok {
				p.mark(id)
			}
		}
		p.broken = min(max(2*p.broken, reopenAfter), reopenMost)
		p.retry = now.Add(p.broken)
		c.exchange.retries[p] = struct{}{}
	case b.last && p.leaving != nil:
		close(p.leaving)
		p.leaving = nil
		fallthrough
	default:
		p.broken = 0
	}
	if p.due() || p.leaving != nil {
		c.wake(p)
	}
}

// filter returns the records of a delta that are worth verifying. About the
// others it does what is to be done: the peer has what is as new as ours, and is
// shown ours where it is newer, also the last record of who is gone, which the
// author may have forgotten.
func (c *core) filter(from identity.ID, d wire.Delta, now time.Time) wire.Delta {
	p := c.byID[from]
	var out wire.Delta
	for _, s := range d {
		id, seq, ok := s.Head()
		if !ok {
			c.out.refused++
			continue
		}
		if id == c.self {
			if c.ownWorthIt(s, seq) {
				out = append(out, s)
			} else if p != nil && seq < c.seq {
				c.owe(p, id, now)
			}
			continue
		}
		switch news := c.table.Weigh(id, seq, s); {
		case news == member.Newer:
			out = append(out, s)
		case p == nil:
		case news == member.Equal:
			p.knows(id)
		default:
			c.owe(p, id, now)
		}
	}
	return out
}

// heard merges a record and passes it on if it was new.
func (c *core) heard(from identity.ID, v member.Verified, now time.Time) {
	r := v.Record()
	if r.ID == c.self {
		c.heardOwn(r, now)
		return
	}
	change, err := c.table.Merge(v, now)
	if err != nil {
		c.out.refused++
		return
	}
	p := c.byID[from]
	if p != nil {
		p.knows(r.ID)
	}
	if change.Kind == member.Unchanged {
		return
	}
	if c.exchange.with != nil && c.exchange.with == p {
		c.exchange.useful = true
	}
	if change.Kind == member.Left {
		c.tell(r.ID, nil)
	} else {
		c.tell(r.ID, &r.Underlay)
	}
	if !change.Evicted.IsZero() {
		c.tell(change.Evicted, nil)
	}
	if author := c.byID[r.ID]; author != nil && author != p && change.OtherRun {
		c.send(author, r.ID) // it may have lost its state, or be one of two
	}
	few := fanout
	if change.Kind == member.Refreshed {
		few = fanoutRefresh
	}
	c.passOn(from, r.ID, few)
}

func (c *core) tell(id identity.ID, where *[]netip.AddrPort) {
	if c.out.tell == nil {
		c.out.tell = make(map[identity.ID]*[]netip.AddrPort)
	}
	c.out.tell[id] = where
}

// passOn sends a record to a few of those that may not have it.
func (c *core) passOn(from, author identity.ID, few int) {
	if len(c.peers) <= smallMesh {
		for _, p := range c.peers {
			if p.id != from && p.id != author {
				c.send(p, author)
			}
		}
		return
	}
	for i := range c.peers {
		if few == 0 {
			return
		}
		c.swap(i, i+c.rng.IntN(len(c.peers)-i))
		if p := c.peers[i]; p.id != from && p.id != author {
			c.send(p, author)
			few--
		}
	}
}

func (c *core) swap(i, j int) {
	c.peers[i], c.peers[j] = c.peers[j], c.peers[i]
	c.peers[i].index, c.peers[j].index = i, j
}

// sweep expires members and renews the own record.
func (c *core) sweep(now time.Time) {
	for _, id := range c.table.Expire(now) {
		c.tell(id, nil)
	}
	c.retryJump(now)
	if !c.left && !c.published.IsZero() && now.Sub(c.published) >= c.refresh {
		c.out.err = c.renew(c.own, now)
	}
}
