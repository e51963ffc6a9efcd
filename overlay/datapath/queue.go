package datapath

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/kairos-io/kairos/overlay/wire"
)

// How much may wait for one peer, in bytes of frames. The limit moves between
// the two with the speed of the path, so that what waits takes about queueTime
// to send: a slow path gets a short queue and not seconds of delay.
const (
	maxQueue  = 256 << 10
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
	packets int
}

func (b *batch) payload() int { return len(b.frames) - b.packets*wire.FrameHeader }

// batches are shared by all peers, so that idle ones hold no memory.
var batches = sync.Pool{New: func() any { return &batch{frames: make([]byte, 0, maxQueue+reserve)} }}

// keep drops all frames of the batch but the given ones, which are its last.
func (b *batch) keep(rest []byte) {
	b.frames, b.packets = append(b.frames[:0], rest...), 0
	for at := b.frames; len(at) > 0; at = at[wire.FrameHeader+int(binary.BigEndian.Uint16(at)):] {
		b.packets++
	}
}

func (b *batch) release() {
	b.frames, b.packets = b.frames[:0], 0
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

// push copies packets and returns how many found room. New packets are the
// ones that do not: within a stream the old ones are too late to take back.
func (q *queue) push(pkts [][]byte) (accepted int) {
	q.mu.Lock()
	if q.filling == nil {
		q.filling = batches.Get().(*batch)
	}
	b := q.filling
	first := b.packets == 0
	for _, pkt := range pkts {
		room := q.limit
		if len(pkt) <= smallPacket {
			room += reserve
		}
		if len(b.frames)+wire.FrameHeader+len(pkt) > room {
			continue
		}
		b.frames = wire.AppendFrame(b.frames, pkt)
		b.packets++
		accepted++
	}
	q.mu.Unlock()
	if first && accepted > 0 {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return accepted
}

// take returns what waits, or nil. The caller releases it.
func (q *queue) take() *batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.filling
	if b == nil || b.packets == 0 {
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
