package gossip

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Implementation constants of a writer.
const (
	writeTimeout = 15 * time.Second
	reopenAfter  = time.Second // after a broken stream, doubling up to
	reopenMost   = 30 * time.Second
)

// writer is the half towards one connected peer.
type writer struct {
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
	last    bool        // nothing will follow what is due now

	finished chan struct{} // the peer has read the last of it, or is gone
}

func newWriter(ctx context.Context, g *Gossip, peer identity.ID) *writer {
	w := &writer{
		g: g, peer: peer, wake: make(chan struct{}, 1), known: make(wire.Digest),
		digest: true, finished: make(chan struct{}), pace: newPace(),
	}
	// Before the peer's digest comes, its own record is all that it knows for
	// sure; ours goes at once, the rest waits for the digest.
	w.known, w.pending = g.cfg.Table.Digest(), true
	delete(w.known, g.self)
	w.ctx, w.cancel = context.WithCancel(ctx)
	w.nudge()
	return w
}

func (w *writer) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// push has whatever the peer lacks sent.
func (w *writer) push() {
	w.mu.Lock()
	w.pending = true
	w.mu.Unlock()
	w.nudge()
}

// compare has a digest sent.
func (w *writer) compare() {
	w.mu.Lock()
	w.digest = true
	w.mu.Unlock()
	w.nudge()
}

// knows notes that the peer has a record.
func (w *writer) knows(id identity.ID, seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known[id] = max(w.known[id], seq)
}

// learn takes the peer's own word for what it knows.
func (w *writer) learn(d wire.Digest) {
	w.mu.Lock()
	w.known = d
	w.pending = true
	w.mu.Unlock()
	w.nudge()
}

// finish sends what is due and waits until the peer has read it, or is gone.
// Nothing can be sent after that.
func (w *writer) finish(ctx context.Context) error {
	w.mu.Lock()
	w.last = true
	w.mu.Unlock()
	w.nudge()
	select {
	case <-w.finished:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run writes to the peer until it is disconnected.
func (w *writer) run() {
	defer close(w.finished)
	defer w.cancel()
	var s link.Stream
	defer func() {
		if s != nil {
			_ = s.Close() // what was written is on its way; nothing waits for more
		}
	}()
	retry := reopenAfter
	for {
		select {
		case <-w.wake:
		case <-w.ctx.Done():
			return
		}
		err := w.write(&s)
		if err == nil {
			retry = reopenAfter
			if w.isLast() {
				w.drain(s)
				return
			}
			continue
		}
		if s != nil {
			_ = s.Reset()
			s = nil
		}
		w.g.log.Debug("gossip stream broke", "peer", w.peer.Short(), "err", err)
		if !w.pause(retry) {
			return
		}
		retry = min(2*retry, reopenMost)
		w.compare() // nobody knows what was lost with the stream
	}
}

func (w *writer) isLast() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last && !w.pending && !w.digest
}

// drain ends the stream and waits for the peer to do the same, which it does
// when it has read everything: a connection that is closed earlier drops what
// is still on its way.
func (w *writer) drain(s link.Stream) {
	if s == nil || s.CloseWrite() != nil || s.SetReadDeadline(time.Now().Add(writeTimeout)) != nil {
		return
	}
	stop := context.AfterFunc(w.ctx, func() { _ = s.Reset() })
	defer stop()
	// The end of the stream comes as an error in any case.
	_, _ = s.Read(make([]byte, 1))
}

func (w *writer) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// write sends what is due, opening the stream when needed.
func (w *writer) write(s *link.Stream) error {
	w.mu.Lock()
	digest, pending := w.digest, w.pending
	w.digest, w.pending = false, false
	var missing []wire.Signed
	if pending {
		missing = w.g.cfg.Table.Missing(w.known, wire.MaxMembers)
	}
	// Before it is written, so that a digest that crosses it has the last word.
	// If the stream breaks, the digests that follow put it right.
	for _, r := range missing {
		if id, seq, ok := r.Head(); ok {
			w.known[id] = max(w.known[id], seq)
		}
	}
	w.mu.Unlock()
	if !digest && len(missing) == 0 {
		return nil
	}
	if *s == nil {
		opened, err := w.g.cfg.Mesh.Open(w.ctx, w.peer, Protocol)
		if err != nil {
			return err
		}
		*s = opened
	}
	if err := (*s).SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if err := w.writeDeltas(*s, missing); err != nil {
		return err
	}
	if digest {
		if err := wire.WriteMessage(*s, wire.Message{Digest: w.g.cfg.Table.Digest()}); err != nil {
			return err
		}
		w.g.stats.digests.Add(1)
	}
	return nil
}

func (w *writer) writeDeltas(s link.Stream, missing []wire.Signed) error {
	for _, delta := range wire.Deltas(missing) {
		if err := wire.WriteMessage(s, wire.Message{Delta: delta}); err != nil {
			return err
		}
		w.g.stats.sent.Add(uint64(len(delta)))
	}
	return nil
}

// some picks the links that a heard change is passed on to; the others are
// taken to know it, until a digest says otherwise.
func some(writers []*writer) (chosen, rest []*writer) {
	if len(writers) <= smallMesh {
		return writers, nil
	}
	rand.Shuffle(len(writers), func(i, j int) { writers[i], writers[j] = writers[j], writers[i] })
	return writers[:fanout], writers[fanout:]
}
