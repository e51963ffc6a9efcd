package mesh

import (
	"context"
	"encoding/binary"
	"io"
	"sync"
	"time"
)

// A beat on the wire: kind, number, and the sender's last round trip in
// microseconds, so that the side that only answers knows it too.
const (
	beatSize = 9
	beatPing = 1
	beatPong = 2
)

// lateBy is how late, as a part of Timing.Dead, our own timer must fire for
// the silence to be our fault.
const lateBy = 8

// beat keeps one connection's pulse. The dialler opens the stream; both sides
// send and answer on it. The zero value is ready; a timer does the waiting, so
// that an idle connection holds no goroutine for it.
type beat struct {
	mu      sync.Mutex
	s       *stream
	timer   *time.Timer
	due     time.Duration // mesh time at which timer should fire
	number  uint32
	sentAt  time.Duration // of the ping in flight
	pending bool          // a ping is in flight
	stopped bool
}

// open starts the pulse on the dialling side.
func (b *beat) open(c *conn) {
	s, err := c.open(context.Background(), "")
	if err != nil {
		c.close(err)
		return
	}
	b.read(c, s)
}

// arm starts the clock; both sides call it when the connection is admitted.
func (b *beat) arm(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.armLocked(c)
}

func (b *beat) armLocked(c *conn) {
	if b.stopped {
		return
	}
	now := c.m.now()
	next := min(
		time.Duration(c.sent.Load())+c.m.timing.Beat,
		time.Duration(c.heard.Load())+c.m.timing.Dead,
	)
	wait := max(next-now, c.m.timing.Beat/20)
	b.due = now + wait
	if b.timer == nil {
		b.timer = time.AfterFunc(wait, func() { b.tick(c) })
		return
	}
	b.timer.Reset(wait)
}

func (b *beat) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	if b.timer != nil {
		b.timer.Stop()
	}
}

// tick looks at both silences.
func (b *beat) tick(c *conn) {
	now := c.m.now()
	b.mu.Lock()
	late := now-b.due > c.m.timing.Dead/lateBy
	b.mu.Unlock()
	if late {
		// We were not running: what the peer sent meanwhile may still wait in a
		// buffer. Give it a beat's time before drawing conclusions.
		grace := int64(now - c.m.timing.Dead + c.m.timing.Dead/3)
		if c.heard.Load() < grace {
			c.heard.Store(grace)
		}
	}
	if now-time.Duration(c.heard.Load()) >= c.m.timing.Dead {
		c.close(errDead)
		return
	}
	if now-time.Duration(c.sent.Load()) >= c.m.timing.Beat || late {
		b.ping(c)
	}
	b.arm(c)
}

// ping sends a beat. Where the stream is not there yet, the peer's dial of it
// is still on its way, and the next tick tries again.
func (b *beat) ping(c *conn) {
	b.mu.Lock()
	s := b.s
	b.number++
	number := b.number
	b.sentAt, b.pending = c.m.now(), true
	b.mu.Unlock()
	if s == nil {
		return
	}
	b.send(c, s, beatPing, number)
}

func (b *beat) send(c *conn, s *stream, kind byte, number uint32) {
	var msg [beatSize]byte
	msg[0] = kind
	binary.BigEndian.PutUint32(msg[1:], number)
	binary.BigEndian.PutUint32(msg[5:], uint32(min(time.Duration(c.rtt.Load()).Microseconds(), 1<<32-1)))
	if err := s.SetWriteDeadline(time.Now().Add(c.m.timing.Dead)); err != nil {
		c.close(err)
		return
	}
	if _, err := s.Write(msg[:]); err != nil {
		c.close(err)
	}
}

// read answers pings and measures pongs until the stream ends, and with it
// the connection: neither side ever closes this stream alone.
func (b *beat) read(c *conn, s *stream) {
	b.mu.Lock()
	if b.s != nil { // a second pulse is a protocol violation
		b.mu.Unlock()
		_ = s.Reset()
		return
	}
	b.s = s
	b.mu.Unlock()
	var msg [beatSize]byte
	for {
		if _, err := io.ReadFull(s, msg[:]); err != nil {
			c.close(err)
			return
		}
		number := binary.BigEndian.Uint32(msg[1:])
		switch msg[0] {
		case beatPing:
			if theirs := time.Duration(binary.BigEndian.Uint32(msg[5:])) * time.Microsecond; theirs > 0 {
				c.rtt.Store(int64(theirs))
			}
			b.send(c, s, beatPong, number)
		case beatPong:
			b.pong(c, number)
		}
	}
}

func (b *beat) pong(c *conn, number uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pending && number == b.number {
		b.pending = false
		c.rtt.Store(int64(c.m.now() - b.sentAt))
	}
}
