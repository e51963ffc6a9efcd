package datapath

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/offload"
)

func startStream(opener OpenerFunc) (l *streamPath, stop func(), ended chan struct{}) {
	a := &account{id: identity.ID{1}}
	a.count.total = &drops{}
	ctx, stop := context.WithCancel(context.Background())
	l = newStreamPath(ctx, a, &Datapath{opener: opener, log: slog.New(slog.DiscardHandler)})
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		l.run()
	}()
	return l, stop, ended
}

func TestOpenIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries []time.Duration
		start := time.Now()
		l, stop, ended := startStream(func(context.Context, identity.ID) (Stream, error) {
			tries = append(tries, time.Since(start))
			return nil, errors.New("no")
		})
		const packets = 1000
		for range packets {
			l.take(offload.Packet{Data: make([]byte, 100)})
			time.Sleep(10 * time.Millisecond) // the bubble's clock: packets keep coming for 10 s
		}
		stop()
		<-ended
		if len(tries) > 12 || len(tries) < 7 || tries[0] != 0 {
			t.Errorf("streams were tried at %v", tries)
		}
		for i := 2; i < len(tries); i++ {
			if gap := tries[i] - tries[i-1]; gap > maxPause+10*time.Millisecond {
				t.Errorf("%v between two tries", gap)
			}
		}
		if got := l.count.drops[DropLinkLost].Load(); got != packets {
			t.Errorf("%d packets counted as lost, want %d", got, packets)
		}
	})
}

func TestHangingOpenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop, ended := startStream(func(ctx context.Context, _ identity.ID) (Stream, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		l.take(offload.Packet{Data: make([]byte, 100)})
		synctest.Wait()
		start := time.Now()
		stop()
		<-ended
		if time.Since(start) != 0 {
			t.Errorf("close took %v", time.Since(start))
		}
	})
}

func TestSteadyStreamIsFollowedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var opened atomic.Int32
		var far *memStream
		l, stop, ended := startStream(func(context.Context, identity.ID) (Stream, error) {
			opened.Add(1)
			var near *memStream
			near, far = pipe()
			go func(far *memStream) {
				buf := make([]byte, 100)
				for {
					if _, err := far.Read(buf); err != nil {
						return
					}
				}
			}(far)
			return near, nil
		})
		for round := range 3 {
			l.take(offload.Packet{Data: make([]byte, 50)})
			synctest.Wait()
			if int(opened.Load()) != round+1 {
				t.Errorf("round %d: %d streams opened", round, opened.Load())
			}
			time.Sleep(2 * steadyAfter)
			_ = far.Close()
			synctest.Wait()
		}
		stop()
		<-ended
		if lost, sent := l.count.drops[DropLinkLost].Load(), l.count.txPackets.Load(); lost != 0 || sent != 3 {
			t.Errorf("%d lost, %d sent", lost, sent)
		}
	})
}

func (q *queue) pushAll(packets ...[]byte) (accepted int) {
	for _, p := range packets {
		if q.push(offload.Packet{Data: p}) {
			accepted++
		}
	}
	return accepted
}

func TestQueue(t *testing.T) {
	q := newQueue()
	big, small := make([]byte, 60_000), make([]byte, 50)
	const fit = maxQueue / 60_004
	if n := q.pushAll(append(slices.Repeat([][]byte{big}, fit+1), small)...); n != fit+1 {
		t.Errorf("%d accepted, want %d big ones and the small one", n, fit)
	}
	b := q.take()
	if b.packets != fit+1 || b.payload() != fit*60_000+50 {
		t.Errorf("batch of %d packets with %d bytes", b.packets, b.payload())
	}
	b.release()
	if q.take() != nil || q.queued() != 0 {
		t.Error("the queue should be empty")
	}
	for _, c := range []struct {
		name  string
		n     int
		d     time.Duration
		limit int
	}{
		{"fast", maxQueue, time.Microsecond, maxQueue},
		{"no time at all", maxQueue, 0, maxQueue},
		{"slow", maxQueue, 10 * time.Second, minQueue},
		{"between: 10 MB/s", 100_000, 10 * time.Millisecond, 125_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 50 {
				q.adapt(c.n, c.d)
				q.adapt(100, time.Hour) // too small to tell anything
			}
			if diff := q.limit - c.limit; diff > 5 || diff < -5 {
				t.Errorf("limit %d, want %d", q.limit, c.limit)
			}
		})
	}
	q.limit = minQueue
	pings := slices.Repeat([][]byte{make([]byte, 84)}, 1000)
	if n := q.pushAll(slices.Repeat([][]byte{make([]byte, 1400)}, 1000)...); n != minQueue/1404 {
		t.Errorf("%d large packets fill the queue", n)
	}
	if n := q.pushAll(pings...); n < reserve/88 || n > (reserve+1404)/88 {
		t.Errorf("%d small packets find room in a full queue", n)
	}
	if b = q.take(); cap(b.frames) != maxQueue+reserve {
		t.Error("the batch grew beyond its buffer")
	}
	b.release()
	if q.pushAll(make([]byte, 65535)) != 1 {
		t.Error("the largest packet must always find an empty queue")
	}
}

// sink is a Stream that takes everything at once, and a Device that gives and takes.
type sink struct{ done chan struct{} }

func (s sink) Write(b []byte) (int, error) { return len(b), nil }
func (s sink) Read([]byte) (int, error)    { <-s.done; return 0, errors.New("closed") }
func (s sink) Close() error                { return s.Reset() }
func (s sink) Reset() error                { close(s.done); return nil }

type sinkDevice struct{ Device }

func (sinkDevice) Write(offload.Header, [][]byte) error { return nil }
func (sinkDevice) MTU() int                             { return DefaultMTU }
func (sinkDevice) Close() error                         { return nil }

// steadyBatch is how many packets a round of the steady state has.
const steadyBatch = 64

// steady is a Datapath in its steady state, and a batch of packets out and in.
func steady(t testing.TB) (s *sender, out, in [][]byte, from *account) {
	n := newNetwork(t, 2)
	a, b := n.members[0], n.members[1]
	dp := New(Config{Self: a.id, Device: sinkDevice{}, Log: slog.New(slog.DiscardHandler),
		Opener: OpenerFunc(func(context.Context, identity.ID) (Stream, error) { return sink{make(chan struct{})}, nil })})
	dp.SetRoutes(a.dp.routes.Load())
	dp.PeerUp(b.id)
	a.dp.shutdown()
	b.dp.shutdown()
	for i := range steadyBatch {
		out = append(out, packet(a.v4, b.v4, i, 1400))
		in = append(in, packet(b.v4, a.v4, i, 1400))
	}
	t.Cleanup(dp.shutdown)
	return newSender(dp), out, in, dp.accountOf(b.id)
}

// forwardAll passes packets through the queues of flows and on.
func (s *sender) forwardAll(pkts [][]byte) {
	for _, pkt := range pkts {
		slot := s.fair.room()
		slot.pkt = offload.Packet{Data: slot.room[:copy(slot.room, pkt)]}
		s.fair.push(slot, s.now)
	}
	for slot := s.fair.pop(s.now); slot != nil; slot = s.fair.pop(s.now) {
		s.forward(slot.pkt)
		s.fair.release(slot)
	}
	s.flush()
}

func deliverAll(t testing.TB, d *Datapath, from *account, pkts [][]byte) {
	r := d.receivers.get()
	defer d.receivers.put(r)
	r.pkts = r.pkts[:0]
	for _, pkt := range pkts {
		if !r.take(pkt, offload.Whole) {
			t.Fatal("not a packet")
		}
	}
	if err := d.deliver(from, r); err != nil {
		t.Fatal(err)
	}
}

func TestNoAllocationPerPacket(t *testing.T) {
	s, out, in, from := steady(t)
	if n := testing.AllocsPerRun(200, func() { s.forwardAll(out) }); n > 1 { // per batch of 64: the pool may lose a buffer to the collector
		t.Errorf("%v allocations per batch out", n)
	}
	if n := testing.AllocsPerRun(200, func() { deliverAll(t, s.d, from, in) }); n != 0 {
		t.Errorf("%v allocations per batch in", n)
	}
}

func BenchmarkForward(b *testing.B) {
	s, out, _, _ := steady(b)
	b.SetBytes(1400 * steadyBatch)
	b.ReportAllocs()
	for b.Loop() {
		s.forwardAll(out)
	}
}

func BenchmarkDeliver(b *testing.B) {
	s, _, in, from := steady(b)
	b.SetBytes(1400 * steadyBatch)
	b.ReportAllocs()
	for b.Loop() {
		deliverAll(b, s.d, from, in)
	}
}
