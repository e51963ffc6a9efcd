package datapath

import (
	"sync"
	"time"

	"github.com/kairos-io/kairos/overlay/offload"
	"github.com/kairos-io/kairos/overlay/wire"
)

// How much may wait for one peer, in bytes of frames. The limit moves between
// the two with the speed of the path, so that what waits takes about queueTime
// to send: a slow path gets a short queue and not seconds of delay.
const (
	maxQueue  = 1 << 20
	minQueue  = 66 << 10 // one packet of any size fits
	queueTime = 25 * time.Millisecond
	// reserve is room beyond the limit for packets of at most smallPacket bytes:
	// pings, names, handshakes and heartbeats get through a queue that others fill.
	reserve     = 16 << 10
	smallPacket = 256
	// measureFrom is the smallest write that tells a speed.
	measureFrom = 16 << 10
)

// batch is queued frames, back to back as they go on the stream.
type batch struct {
	frames  []byte
	count   int // of them
	packets int // that they stand for
}

func (b *batch) payload() int { return len(b.frames) - b.count*wire.FrameHeader }

// batches are shared by all peers, so that idle ones hold no memory.
var batches = sync.Pool{New: func() any { return &batch{frames: make([]byte, 0, maxQueue+reserve)} }}

func (b *batch) release() {
	b.frames, b.count, b.packets = b.frames[:0], 0, 0
	batches.Put(b)
}

// queue collects packets for one writer, who takes all of them at once: while
// one batch is on its way, the next one fills.
type queue struct {
	wake chan struct{} // holds a token when there is something to take

	mu      sync.Mutex
	filling *batch // nil when empty
	limit   int
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1), limit: maxQueue} }

// push copies a packet and reports whether it found room. A new packet is the one
// that does not: within a stream the old ones are too late to take back.
func (q *queue) push(p offload.Packet) bool {
	q.mu.Lock()
	b := q.filling
	if b == nil {
		b = batches.Get().(*batch)
		q.filling = b
	}
	room := q.limit
	if len(p.Data) <= smallPacket {
		room += reserve
	}
	ok := len(b.frames)+wire.FrameHeader+len(p.Data) <= room
	if ok {
		b.frames = wire.AppendFrame(b.frames, p.Data, uint16(p.Shape))
		b.packets += p.Segments()
		b.count++
	}
	first := b.count == 1
	q.mu.Unlock()
	if ok && first {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return ok
}

// take returns what waits, or nil. The caller releases it.
func (q *queue) take() *batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.filling
	if b == nil || b.count == 0 {
		return nil
	}
	q.filling = nil
	return b
}

// queued is how many bytes wait.
func (q *queue) queued() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.filling == nil {
		return 0
	}
	return len(q.filling.frames)
}

// adapt learns the path's speed from one write of n bytes that took d. Half of
// the queue's time is the batch on its way, half the one that fills.
func (q *queue) adapt(n int, d time.Duration) {
	if n < measureFrom {
		return
	}
	limit := maxQueue
	if d > 0 {
		limit = int(min(float64(n)*float64(queueTime)/2/float64(d), maxQueue))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit = max(minQueue, (3*q.limit+limit)/4)
}
