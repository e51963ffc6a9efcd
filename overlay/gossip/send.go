package gossip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/wire"
)

// writeTimeout is how long a peer may leave a batch unread.
const writeTimeout = 15 * time.Second

// sender is the stream towards one connected peer. It has a goroutine only while
// a batch is on its way; that goroutine then owns the stream.
type sender struct {
	peer   *peer
	id     identity.ID
	ctx    context.Context // ends with the stream's use
	cancel context.CancelFunc
	stream link.Stream // nil: to be opened
	busy   bool        // the owner's: a goroutine has the stream
}

// pickUp begins to send to a peer.
func (g *Gossip) pickUp(ctx context.Context, o *owned, p *peer) {
	s := &sender{peer: p, id: p.id}
	s.ctx, s.cancel = context.WithCancel(ctx)
	o.senders[p] = s
}

// hangUp ends sending to a peer; what was written is on its way.
func (g *Gossip) hangUp(o *owned, p *peer) {
	s := o.senders[p]
	if s == nil {
		return
	}
	delete(o.senders, p)
	s.cancel()
	p.busy = false
	if !s.busy {
		o.start(s, batch{}) // closing may take its time
	}
}

// send starts a batch to p if there is one.
func (g *Gossip) send(o *owned, p *peer) {
	s := o.senders[p]
	if s == nil || s.busy {
		return
	}
	b := o.core.take(p, g.cfg.Now())
	if b.empty() && !b.last {
		return
	}
	s.busy = true
	o.start(s, b)
}

// deliver writes a batch, and says what became of it.
func (g *Gossip) deliver(s *sender, b batch) {
	err := g.write(s, b)
	if err == nil && b.last {
		err = s.drain()
	}
	if s.ctx.Err() != nil {
		if s.stream != nil {
			_ = s.stream.Close() // what was written is on its way; nothing waits for more
		}
		return
	}
	if err != nil {
		if s.stream != nil {
			_ = s.stream.Reset()
			s.stream = nil
		}
		g.log.Debug("gossip stream broke", "peer", s.id.Short(), "err", err)
	}
	left := false // the owner hung up in between, and left the stream to this goroutine
	g.do(func(o *owned) {
		s.busy = false
		if left = o.senders[s.peer] != s; !left {
			o.core.sent(s.peer, b, err, g.cfg.Now())
		}
	})
	if left && s.stream != nil {
		_ = s.stream.Close()
	}
}

// errHungUp ends writing for a peer that is gone.
var errHungUp = errors.New("the peer is gone")

func (g *Gossip) write(s *sender, b batch) error {
	messages := b.messages()
	if len(messages) == 0 {
		return nil
	}
	if s.ctx.Err() != nil {
		return errHungUp
	}
	if s.stream == nil {
		opened, err := g.cfg.Mesh.Open(s.ctx, s.id, Protocol)
		if err != nil {
			return err
		}
		s.stream = opened
	}
	if err := s.stream.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	stream := s.stream
	stop := context.AfterFunc(s.ctx, func() { _ = stream.SetWriteDeadline(time.Now()) })
	defer stop()
	for _, m := range messages {
		raw, err := wire.AppendMessage(nil, m)
		if err != nil {
			return err
		}
		if _, err := s.stream.Write(raw); err != nil {
			return err
		}
		g.count(m, len(raw))
	}
	return nil
}

func (g *Gossip) count(m wire.Message, size int) {
	g.stats.bytes.Add(uint64(size))
	switch m := m.(type) {
	case wire.Delta:
		g.stats.sent.Add(uint64(len(m)))
	case wire.Digest:
		g.stats.digests.Add(1)
	case wire.Summary:
		g.stats.summaries.Add(1)
	}
}

// drain ends the stream and waits for the peer to do the same, which it does
// when it has read everything: a connection that is closed earlier drops what
// is still on its way, and so does a stream that ends in any other way.
func (s *sender) drain() error {
	stream := s.stream
	if stream == nil {
		return nil
	}
	if err := errors.Join(stream.SetReadDeadline(time.Now().Add(writeTimeout)), stream.CloseWrite()); err != nil {
		return err
	}
	stop := context.AfterFunc(s.ctx, func() { _ = stream.Reset() })
	defer stop()
	if _, err := stream.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("wait until all is read: %w", err)
	}
	_ = stream.Close()
	s.stream = nil
	return nil
}
