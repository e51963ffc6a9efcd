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

// streamLink is the way to one peer in its stream form, with the direct one beside
// it: packets take that while it is up. Its stream is opened by the first packet that
// needs one, and lives until the link is closed or the stream breaks; the next packet
// then opens another.
type streamLink struct {
	id     identity.ID
	opener Opener
	queue  *queue
	count  *counters
	log    *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	out    atomic.Pointer[outStream] // the latest; written by run alone

	direct *direct // nil: there is none
	sender Sender  // of the direct way and of the goroutine in Run

	watchers sync.WaitGroup
	// Of the goroutine in run.
	opened time.Time // the last try
	pause  time.Duration
}

// newStreamLink makes a link; run makes it work.
func newStreamLink(id identity.ID, opener Opener, count *counters, log *slog.Logger) *streamLink {
	l := &streamLink{id: id, opener: opener, queue: newQueue(), count: count, log: log}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// send takes a packet for the stream. It never blocks, and keeps nothing of it.
func (l *streamLink) send(p offload.Packet) {
	if !l.queue.push(p) {
		l.count.drop(DropQueueFull, p.Segments())
	}
}

// begin has packets sealed for the direct way from now on, if that is up. It returns
// the largest packet that goes the way there is, and the largest segment of one.
func (l *streamLink) begin(k *packer, now time.Duration) (mtu int) {
	if l.direct == nil || !l.direct.use() {
		return wire.MaxPacket
	}
	keys, mtu := l.direct.session.Sealing(now), l.direct.mtu()
	if keys == nil || mtu == 0 {
		return wire.MaxPacket
	}
	if l.sender == nil {
		var err error
		if l.sender, err = l.direct.d.direct.Sender(l.id); err != nil {
			return wire.MaxPacket // the connection has just moved: PathChanged follows
		}
	}
	k.begin(l.direct, keys, l.sender, mtu)
	return mtu
}

// Path tells which way packets go now.
func (l *streamLink) Path() PathInfo {
	return l.direct.describe(PathInfo{Kind: KindStream, Up: l.isUp(), MTU: wire.MaxPacket, Queued: l.queue.queued()})
}

func (l *streamLink) isUp() bool {
	out := l.out.Load()
	return out != nil && !out.broken.Load()
}

// Close gives the link up: packets on it are lost. It does not wait for run to end.
func (l *streamLink) Close() error {
	l.cancel()
	if l.direct != nil {
		l.direct.cancel()
	}
	return nil
}

// run sends what is queued until the link is closed. Nothing of the link runs
// any more when it returns.
func (l *streamLink) run() {
	defer l.watchers.Wait()
	for {
		select {
		case <-l.ctx.Done():
			l.discard()
			return
		case <-l.queue.wake:
		}
		for b := l.queue.take(); b != nil; b = l.queue.take() {
			if err := l.flush(b); err != nil && l.ctx.Err() == nil {
				l.log.Debug("data stream broke", "peer", l.id.Short(), "err", err)
			}
		}
	}
}

// flush writes b, on a new stream where there is none, and releases it.
func (l *streamLink) flush(b *batch) error {
	defer b.release()
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

func (l *streamLink) discard() {
	if b := l.queue.take(); b != nil {
		l.count.drop(DropLinkLost, b.packets)
		b.release()
	}
}

// open opens a stream; the first at once, and so one after a stream that
// lasted, but those that fail or break at once with growing pauses.
func (l *streamLink) open() error {
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

func (l *streamLink) sleep(d time.Duration) error {
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

// watch waits for the end of the stream, so that no packet has to be lost to
// find out about it. The peer has nothing to say here.
func (o *outStream) watch() {
	var nothing [1]byte
	_, _ = o.Read(nothing[:])
	_ = o.abandon()
}
