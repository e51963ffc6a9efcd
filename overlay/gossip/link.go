package gossip

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/mesh"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Implementation constants of a link.
const (
	writeTimeout = 15 * time.Second
	reopenAfter  = time.Second // after a broken stream, doubling up to
	reopenMost   = 30 * time.Second
)

// link is the writing half towards one connected peer.
type link struct {
	g      *Gossip
	peer   identity.ID
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{}
	pace   pace // of what the peer sends

	mu      sync.Mutex
	known   wire.Digest // what the peer knows, to the best of our knowledge
	pending bool        // there may be records to send
	digest  bool        // a digest is to be sent
	wrote   chan struct{}
}

func newLink(ctx context.Context, g *Gossip, peer identity.ID) *link {
	l := &link{
		g: g, peer: peer, wake: make(chan struct{}, 1), known: make(wire.Digest),
		digest: true, wrote: make(chan struct{}), pace: newPace(),
	}
	// Before the peer's digest comes, its own record is all that it knows for
	// sure; ours goes at once, the rest waits for the digest.
	l.known, l.pending = g.cfg.Table.Digest(), true
	delete(l.known, g.self)
	l.ctx, l.cancel = context.WithCancel(ctx)
	l.nudge()
	return l
}

func (l *link) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// push has whatever the peer lacks sent.
func (l *link) push() {
	l.mu.Lock()
	l.pending = true
	l.mu.Unlock()
	l.nudge()
}

// compare has a digest sent.
func (l *link) compare() {
	l.mu.Lock()
	l.digest = true
	l.mu.Unlock()
	l.nudge()
}

// knows notes that the peer has a record.
func (l *link) knows(id identity.ID, seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[id] = max(l.known[id], seq)
}

// learn takes the peer's own word for what it knows.
func (l *link) learn(d wire.Digest) {
	l.mu.Lock()
	l.known = d
	l.pending = true
	l.mu.Unlock()
	l.nudge()
}

// flushed waits until the peer was sent a record, or is gone.
func (l *link) flushed(ctx context.Context, id identity.ID, seq uint64) error {
	for {
		l.mu.Lock()
		done, wrote := l.known[id] >= seq, l.wrote
		l.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-wrote:
		case <-l.ctx.Done():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// run writes to the peer until it is disconnected.
func (l *link) run() {
	defer l.cancel()
	var s mesh.Stream
	defer func() {
		if s != nil {
			_ = s.Close() // what was written is on its way; nothing waits for more
		}
	}()
	retry := reopenAfter
	for {
		select {
		case <-l.wake:
		case <-l.ctx.Done():
			return
		}
		err := l.write(&s)
		if err == nil {
			retry = reopenAfter
			continue
		}
		if s != nil {
			_ = s.Reset()
			s = nil
		}
		l.g.log.Debug("gossip stream broke", "peer", l.peer.Short(), "err", err)
		if !l.pause(retry) {
			return
		}
		retry = min(2*retry, reopenMost)
		l.compare() // nobody knows what was lost with the stream
	}
}

func (l *link) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// write sends what is due, opening the stream when needed.
func (l *link) write(s *mesh.Stream) error {
	l.mu.Lock()
	digest, pending := l.digest, l.pending
	l.digest, l.pending = false, false
	var missing []wire.Signed
	if pending {
		missing = l.g.cfg.Table.Missing(l.known, wire.MaxMembers)
	}
	l.mu.Unlock()
	if !digest && len(missing) == 0 {
		return nil
	}
	if *s == nil {
		opened, err := l.g.cfg.Mesh.Open(l.ctx, l.peer, Protocol)
		if err != nil {
			return err
		}
		*s = opened
	}
	if err := (*s).SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if err := l.writeDeltas(*s, missing); err != nil {
		return err
	}
	if digest {
		if err := wire.WriteMessage(*s, wire.Message{Digest: l.g.cfg.Table.Digest()}); err != nil {
			return err
		}
		l.g.stats.digests.Add(1)
	}
	return nil
}

func (l *link) writeDeltas(s mesh.Stream, missing []wire.Signed) error {
	for _, delta := range wire.Deltas(missing) {
		if err := wire.WriteMessage(s, wire.Message{Delta: delta}); err != nil {
			return err
		}
		l.g.stats.sent.Add(uint64(len(delta)))
		l.mu.Lock()
		for _, r := range delta {
			if id, seq, ok := r.Head(); ok {
				l.known[id] = max(l.known[id], seq)
			}
		}
		close(l.wrote)
		l.wrote = make(chan struct{})
		l.mu.Unlock()
	}
	return nil
}

// some picks the links that a heard change is passed on to; the others are
// taken to know it, until a digest says otherwise.
func some(links []*link) (chosen, rest []*link) {
	if len(links) <= smallMesh {
		return links, nil
	}
	rand.Shuffle(len(links), func(i, j int) { links[i], links[j] = links[j], links[i] })
	return links[:fanout], links[fanout:]
}
