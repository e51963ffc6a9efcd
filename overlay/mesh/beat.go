package mesh

import (
	"context"
	"encoding/binary"
	"io"
	"net/netip"
	"sync"
	"time"
)

// A message of the beat stream is its kind, the length of the rest, and the rest.
// Unknown kinds are passed over, and so is what follows the fields of known ones.
//
//	ping   number 4 bytes, the sender's last round trip in µs 4 bytes, so that the
//	       side that only answers knows it too
//	pong   number 4 bytes
//	clone  IP address 16 bytes, port 2 bytes: another machine with the receiver's
//	       key called from there
const (
	beatPing  = 1
	beatPong  = 2
	beatClone = 3

	beatHead = 2
	beatMax  = beatHead + 255
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
	number  uint32        // of the last ping
	sentAt  time.Duration // when that was
	owed    bool          // it waits for the stream
	ponged  uint32        // number of the last pong
	waiting []chan struct{}
	stopped bool

	writing sync.Mutex // a message is written whole
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

// ping sends a beat and returns its number. Where the stream is not there yet, the
// peer's dial of it is still on its way, and the ping follows when it comes.
func (b *beat) ping(c *conn) uint32 {
	b.mu.Lock()
	s := b.s
	b.number++
	number := b.number
	b.sentAt, b.owed = c.m.now(), s == nil
	b.mu.Unlock()
	if s != nil {
		b.sendPing(c, s, number)
	}
	return number
}

// answered reports whether a ping was answered.
func (b *beat) answered(number uint32) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int32(b.ponged-number) >= 0 && b.ponged != 0
}

// pong returns a channel that the next pong closes.
func (b *beat) pong() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	ch := make(chan struct{})
	b.waiting = append(b.waiting, ch)
	return ch
}

func (b *beat) sendPing(c *conn, s *stream, number uint32) {
	body := binary.BigEndian.AppendUint32(nil, number)
	b.send(c, s, beatPing, binary.BigEndian.AppendUint32(body, uint32(min(time.Duration(c.rtt.Load()).Microseconds(), 1<<32-1))))
}

// tellClone tells the peer of a machine that has its key.
func (b *beat) tellClone(c *conn, at netip.AddrPort) {
	b.mu.Lock()
	s := b.s
	b.mu.Unlock()
	if s == nil {
		return
	}
	ip := at.Addr().As16()
	b.send(c, s, beatClone, binary.BigEndian.AppendUint16(ip[:], at.Port()))
}

func (b *beat) send(c *conn, s *stream, kind byte, body []byte) {
	b.writing.Lock()
	defer b.writing.Unlock()
	if err := s.SetWriteDeadline(time.Now().Add(c.m.timing.Dead)); err != nil {
		c.close(err)
		return
	}
	if _, err := s.Write(append([]byte{kind, byte(len(body))}, body...)); err != nil {
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
	owed, number := b.owed, b.number
	b.mu.Unlock()
	if owed {
		b.sendPing(c, s, number)
	}
	var buf [beatMax]byte
	for {
		if _, err := io.ReadFull(s, buf[:beatHead]); err != nil {
			c.close(err)
			return
		}
		body := buf[beatHead : beatHead+int(buf[1])]
		if _, err := io.ReadFull(s, body); err != nil {
			c.close(err)
			return
		}
		b.take(c, buf[0], body)
	}
}

// take acts on one message.
func (b *beat) take(c *conn, kind byte, body []byte) {
	switch {
	case kind == beatPing && len(body) >= 8:
		if theirs := time.Duration(binary.BigEndian.Uint32(body[4:])) * time.Microsecond; theirs > 0 {
			c.rtt.Store(int64(theirs))
		}
		b.mu.Lock()
		s := b.s
		b.mu.Unlock()
		b.send(c, s, beatPong, body[:4])
	case kind == beatPong && len(body) >= 4:
		b.takePong(c, binary.BigEndian.Uint32(body))
	case kind == beatClone && len(body) >= 18:
		at := netip.AddrPortFrom(netip.AddrFrom16([16]byte(body[:16])).Unmap(), binary.BigEndian.Uint16(body[16:]))
		c.m.toldOfClone(c, at)
	}
}

func (b *beat) takePong(c *conn, number uint32) {
	b.mu.Lock()
	if number == b.number && b.ponged != number {
		c.rtt.Store(int64(c.m.now() - b.sentAt))
	}
	if int32(number-b.ponged) > 0 && int32(b.number-number) >= 0 {
		b.ponged = number
	}
	waiting := b.waiting
	b.waiting = nil
	b.mu.Unlock()
	for _, ch := range waiting {
		close(ch)
	}
	c.m.trust(c)
}
