package gossip

import (
	"context"
	"errors"
	"io"

	"golang.org/x/time/rate"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/wire"
)

// What one peer may make this node do: checking a signature takes about
// 0.1 ms, so that the worst peer keeps a twentieth of a core busy. A peer that
// wants more is slowed down by its own full stream.
const (
	recordsPerSecond = 500
	recordsBurst     = wire.MaxMembers
	messagesPerTime  = 50
	messagesBurst    = 500
)

// pace bounds what one peer may send, over all of its streams.
type pace struct{ records, messages *rate.Limiter }

func newPace() pace {
	return pace{rate.NewLimiter(recordsPerSecond, recordsBurst), rate.NewLimiter(messagesPerTime, messagesBurst)}
}

// read takes in what one peer writes until its stream ends.
func (g *Gossip) read(ctx context.Context, peer identity.ID, s link.Stream) {
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	for {
		m, err := wire.ReadMessage(s)
		if err != nil {
			if errors.Is(err, io.EOF) {
				_ = s.Close() // tells the peer that all was read
				return
			}
			if ctx.Err() == nil {
				g.log.Debug("gossip from peer ended", "peer", peer.Short(), "err", err)
			}
			_ = s.Reset()
			return
		}
		w := g.writerTo(peer)
		if w == nil {
			continue // not up yet, or down already: the digests at the next start repeat it
		}
		if w.pace.messages.Wait(ctx) != nil || w.pace.records.WaitN(ctx, len(m.Delta)) != nil {
			return // only the end of ctx makes them fail, and that resets the stream
		}
		if m.Digest != nil {
			g.heardDigest(w, m.Digest)
			continue
		}
		for _, r := range m.Delta {
			g.heardRecord(w, r)
		}
	}
}

// heardDigest answers with what the peer lacks, and asks for what we lack.
func (g *Gossip) heardDigest(w *writer, d wire.Digest) {
	mine := g.cfg.Table.Digest()
	for id, seq := range d {
		if id != g.self && seq > mine[id] {
			w.compare()
			break
		}
	}
	if d[g.self] > g.ownSeq() {
		w.compare() // somebody knows a younger record of ours: have it shown
	}
	w.learn(d)
}

func (g *Gossip) ownSeq() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seq
}

// heardRecord merges a record and passes it on if it was new.
func (g *Gossip) heardRecord(w *writer, s wire.Signed) {
	g.stats.received.Add(1)
	id, seq, ok := s.Head()
	if !ok {
		g.stats.refused.Add(1)
		return
	}
	if id == g.self {
		g.heardOwn(s)
		return
	}
	change, err := g.cfg.Table.Merge(s, g.cfg.Now())
	if err != nil {
		g.stats.refused.Add(1)
		g.log.Debug("record refused", "peer", w.peer.Short(), "err", err)
		return
	}
	w.knows(id, seq)
	if change.Kind == member.Unchanged {
		return
	}
	g.note(change.Kind)
	if change.Kind == member.Left {
		g.cfg.Mesh.Forget(id)
	} else {
		g.cfg.Mesh.Learn(id, change.Record.Underlay)
	}
	if !change.Evicted.IsZero() {
		g.cfg.Mesh.Forget(change.Evicted)
	}
	g.passOn(w.peer, id, seq)
}

// heardOwn jumps over a record of ours that we do not remember: an earlier
// life of this key had more starts than our state says.
func (g *Gossip) heardOwn(s wire.Signed) {
	r, err := wire.Open(s)
	if err != nil {
		g.stats.refused.Add(1)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.Seq <= g.seq {
		return
	}
	g.seq = r.Seq
	if g.published.IsZero() {
		return
	}
	if err := g.publishLocked(g.own); err != nil {
		g.log.Warn("cannot publish this node's record again", "err", err)
	}
}

// passOn sends a record to a few of those that may not have it.
func (g *Gossip) passOn(from, author identity.ID, seq uint64) {
	g.mu.Lock()
	var writers []*writer
	for id, w := range g.writers {
		if id != from && id != author {
			writers = append(writers, w)
		}
	}
	g.mu.Unlock()
	chosen, rest := some(writers)
	for _, w := range rest {
		w.knows(author, seq)
	}
	for _, w := range chosen {
		w.push()
	}
}
