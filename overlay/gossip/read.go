package gossip

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/wire"
)

// What one peer may make this node do, over all of its streams. A peer that wants
// more is slowed down by its own full stream: it waits before its bytes are read.
const (
	messagesPerSecond = 20
	messagesBurst     = 200
	bytesPerSecond    = 64 << 10
	bytesBurst        = 512 << 10 // more than a message
	recordsPerSecond  = 500       // to be verified
	recordsBurst      = 1024
)

// What all peers together may have verified: it takes about 0.1 ms each, so that
// the worst of meshes keeps a fifth of a core busy.
const (
	verifiesPerSecond = 2000
	verifiesBurst     = wire.MaxMembers
)

// bodyTimeout is how long a message may take from its first byte to its last.
const bodyTimeout = 30 * time.Second

// idleReader is how long the pace of a peer without a stream is remembered: by then
// there is nothing to remember.
const idleReader = time.Minute

// pace bounds what one peer may send.
type pace struct{ messages, bytes, records *rate.Limiter }

func newPace() pace {
	return pace{
		rate.NewLimiter(messagesPerSecond, messagesBurst), rate.NewLimiter(bytesPerSecond, bytesBurst),
		rate.NewLimiter(recordsPerSecond, recordsBurst),
	}
}

// maxStreams are read of one peer. It writes to one; others are those that it has
// given up and closed, since another connection took their place. Which of two that
// come over two connections at once is the newer nobody here can tell, so that none
// may be cut off for the other.
const maxStreams = 4

// inbound knows of each peer the streams that are read. Its lock is held for
// looking up only.
type inbound struct {
	verifies *rate.Limiter

	mu      sync.Mutex
	readers map[identity.ID]*reader
}

// reader is what is read from one peer.
type reader struct {
	pace    pace
	streams []link.Stream // that are read, as they came
	waiting int           // streams that are handled
	idle    time.Time     // since when there is none
}

func newInbound() inbound {
	return inbound{verifies: rate.NewLimiter(verifiesPerSecond, verifiesBurst), readers: make(map[identity.ID]*reader)}
}

// enter counts a new stream of a peer, which its pace must admit before it is read.
func (in *inbound) enter(id identity.ID) *reader {
	in.mu.Lock()
	defer in.mu.Unlock()
	r := in.readers[id]
	if r == nil {
		r = &reader{pace: newPace()}
		in.readers[id] = r
	}
	r.waiting++
	return r
}

// adopt makes s one of the streams that are read, and returns the one that is too
// many and to be reset, or nil.
func (in *inbound) adopt(r *reader, s link.Stream) (old link.Stream) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(r.streams) == maxStreams {
		old = r.streams[0]
		r.streams = slices.Delete(r.streams, 0, 1)
	}
	r.streams = append(r.streams, s)
	return old
}

func (in *inbound) leave(r *reader, s link.Stream, now time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	r.streams = slices.DeleteFunc(r.streams, func(o link.Stream) bool { return o == s })
	r.waiting--
	r.idle = now
}

// sweep forgets peers that sent nothing lately.
func (in *inbound) sweep(now time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for id, r := range in.readers {
		if r.waiting == 0 && now.Sub(r.idle) > idleReader {
			delete(in.readers, id)
		}
	}
}

// read takes in what one peer writes until its stream ends.
func (g *Gossip) read(ctx context.Context, peer identity.ID, s link.Stream) {
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	r := g.inbound.enter(peer)
	defer func() { g.inbound.leave(r, s, g.cfg.Now()) }()
	if r.pace.messages.Wait(ctx) != nil { // an opened stream is as much as a message
		_ = s.Reset()
		return
	}
	if old := g.inbound.adopt(r, s); old != nil {
		_ = old.Reset()
	}
	err := g.readFrom(ctx, peer, r, s)
	if errors.Is(err, io.EOF) {
		_ = s.Close() // tells the peer that all was read
		return
	}
	if ctx.Err() == nil {
		g.log.Debug("gossip from peer ended", "peer", peer.Short(), "err", err)
	}
	_ = s.Reset()
}

func (g *Gossip) readFrom(ctx context.Context, peer identity.ID, r *reader, s link.Stream) error {
	messages := wire.NewMessageReader(s, func(size int) error {
		if err := r.pace.messages.Wait(ctx); err != nil {
			return err
		}
		if err := r.pace.bytes.WaitN(ctx, size); err != nil {
			return err
		}
		return s.SetReadDeadline(time.Now().Add(bodyTimeout))
	})
	skipped := uint64(0)
	for {
		m, err := messages.Next()
		g.stats.skipped.Add(messages.Skipped() - skipped)
		skipped = messages.Skipped()
		if err != nil {
			return err
		}
		if err := s.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		switch m := m.(type) {
		case wire.Delta:
			if err := g.heardDelta(ctx, peer, r, m); err != nil {
				return err
			}
		case wire.Digest:
			g.do(func(o *owned) { o.core.heardDigest(peer, m, g.cfg.Now()) })
		case wire.Summary:
			g.do(func(o *owned) { o.core.heardSummary(peer, m, g.cfg.Now()) })
		case wire.Want:
			g.do(func(o *owned) { o.core.heardWant(peer, m, g.cfg.Now()) })
		}
	}
}

// heardDelta verifies, on the goroutine that reads, what the owner does not have,
// and has it merged.
func (g *Gossip) heardDelta(ctx context.Context, peer identity.ID, r *reader, d wire.Delta) error {
	g.stats.received.Add(uint64(len(d)))
	var news wire.Delta
	g.do(func(o *owned) { news = o.core.filter(peer, d, g.cfg.Now()) })
	verified := make([]member.Verified, 0, len(news))
	for _, s := range news {
		if err := r.pace.records.Wait(ctx); err != nil {
			return err
		}
		if err := g.inbound.verifies.Wait(ctx); err != nil {
			return err
		}
		v, err := member.Verify(s)
		if err != nil {
			g.stats.refused.Add(1)
			g.log.Debug("record refused", "peer", peer.Short(), "err", err)
			continue
		}
		verified = append(verified, v)
	}
	if len(verified) == 0 {
		return nil
	}
	g.do(func(o *owned) {
		for _, v := range verified {
			o.core.heard(peer, v, g.cfg.Now())
		}
	})
	return nil
}
