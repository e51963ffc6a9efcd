package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/offload"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Opening a stream.
const (
	openTimeout = 10 * time.Second      // for one try
	minPause    = 50 * time.Millisecond // between tries at first; it doubles
	maxPause    = 2 * time.Second
	steadyAfter = 5 * time.Second // a stream that lasted so long is followed at once
)

// streamPath is the path of last resort: frames on a stream. That is opened by the first
// packet that needs one, and lives until the peer is stopped or the stream breaks or
// moves; the next packet then opens another.
type streamPath struct {
	id     identity.ID
	opener Opener
	queue  *queue
	count  *counters
	log    *slog.Logger
	ctx    context.Context           // the peer's
	out    atomic.Pointer[outStream] // the latest; written by run alone
	moved  atomic.Bool               // another connection is the peer's now

	watchers sync.WaitGroup
	// Of the goroutine in run.
	opened time.Time // the last try
	pause  time.Duration
}

// newStreamPath makes the path for as long as ctx lasts; run makes it work.
func newStreamPath(ctx context.Context, a *account, d *Datapath) *streamPath {
	return &streamPath{id: a.id, opener: d.opener, queue: newQueue(), count: &a.count, log: d.log, ctx: ctx}
}

// take implements outlet. It never blocks, and keeps nothing of the packet.
func (l *streamPath) take(p offload.Packet) bool {
	if !p.Shape.Large() && len(p.Data) > l.limit() {
		return false
	}
	if !l.queue.push(p) {
		l.count.drop(DropQueueFull, p.Segments())
	}
	if l.broken() {
		l.discard() // run may have ended before
	}
	return true
}

// limit implements outlet.
func (l *streamPath) limit() int { return wire.MaxPacket }

// broken implements outlet: the peer was stopped. Another stream replaces one that breaks.
func (l *streamPath) broken() bool { return l.ctx.Err() != nil }

// flush implements outlet: run does that.
func (l *streamPath) flush() {}

// move has the next packet open a stream anew.
func (l *streamPath) move() { l.moved.Store(true) }

func (l *streamPath) isUp() bool {
	out := l.out.Load()
	return out != nil && !out.broken.Load()
}

// run sends what is queued until the peer is stopped. Nothing of the path runs
// any more when it returns.
func (l *streamPath) run() {
	defer l.watchers.Wait()
	for {
		select {
		case <-l.ctx.Done():
			l.discard()
			return
		case <-l.queue.wake:
		}
		for b := l.queue.take(); b != nil; b = l.queue.take() {
			if err := l.write(b); err != nil && l.ctx.Err() == nil {
				l.log.Debug("data stream broke", "peer", l.id.Short(), "err", err)
			}
		}
	}
}

// write writes b, on a new stream where there is none, and releases it.
func (l *streamPath) write(b *batch) error {
	defer b.release()
	if l.moved.Swap(false) {
		l.out.Load().finish()
	}
	if !l.isUp() {
		if err := l.open(); err != nil {
			l.count.drop(DropLinkLost, b.packets)
			l.discard() // what waited meanwhile is as old
			return fmt.Errorf("open stream: %w", err)
		}
	}
	out := l.out.Load()
	start := time.Now()
	if _, err := out.Write(b.frames); err != nil {
		l.count.drop(DropLinkLost, b.packets)
		return errors.Join(fmt.Errorf("write stream: %w", err), out.abandon())
	}
	l.queue.adapt(len(b.frames), time.Since(start))
	l.count.sent(b.packets, b.payload())
	return nil
}

func (l *streamPath) discard() {
	if b := l.queue.take(); b != nil {
		l.count.drop(DropLinkLost, b.packets)
		b.release()
	}
}

// open opens a stream; the first at once, and so one after a stream that
// lasted, but those that fail or break at once with growing pauses.
func (l *streamPath) open() error {
	if ago := time.Since(l.opened); ago > steadyAfter {
		l.pause = minPause
	} else {
		if err := l.sleep(l.pause - ago); err != nil {
			return err
		}
		l.pause = min(2*l.pause, maxPause)
	}
	ctx, cancel := context.WithTimeout(l.ctx, openTimeout)
	defer cancel()
	s, err := l.opener.Open(ctx, l.id)
	l.opened = time.Now()
	if err != nil {
		return err
	}
	out := &outStream{Stream: s}
	l.out.Store(out)
	stop := context.AfterFunc(l.ctx, func() { _ = out.abandon() })
	l.watchers.Go(func() {
		out.watch()
		stop()
	})
	return nil
}

func (l *streamPath) sleep(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-l.ctx.Done():
		return l.ctx.Err()
	case <-timer.C:
		return nil
	}
}

// outStream is a stream that we only write to.
type outStream struct {
	Stream
	broken atomic.Bool
}

// abandon ends the stream and a Write that waits in it.
func (o *outStream) abandon() error {
	if o.broken.Swap(true) {
		return nil
	}
	return o.Reset()
}

// finish ends the stream once the peer has what was written to it.
func (o *outStream) finish() {
	if o != nil && !o.broken.Swap(true) {
		_ = o.Close() // where that fails, the connection was gone already
	}
}

// watch waits for the end of the stream, so that no packet has to be lost to
// find out about it. The peer has nothing to say here.
func (o *outStream) watch() {
	var nothing [1]byte
	_, _ = o.Read(nothing[:])
	_ = o.abandon()
}
