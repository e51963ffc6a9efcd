package datapath

import (
	"math"
	"time"

	"github.com/kairos-io/kairos/overlay/offload"
)

// How long packets wait here is decided by FQ-CoDel (RFC 8290): each flow has a queue
// of its own, flows take turns, one that sends little goes first, and one that has
// waited too long for too long loses packets until it slows down.
const (
	fairSlots  = 64      // packets that are held at once; more wait in the kernel
	fairBytes  = 2 << 20 // of them
	fairFlows  = 64      // queues
	fairTurn   = 16 << 10
	codelAim   = 5 * time.Millisecond   // what a queue may stand at
	codelGrace = 100 * time.Millisecond // for so long it may be more
)

// slot is a packet that waits, with the room it was read into.
type slot struct {
	room []byte
	pkt  offload.Packet
	at   time.Duration // when it came
	next *slot
}

// flow is the queue of the packets with one hash.
type flow struct {
	head, tail *slot
	bytes      int
	deficit    int
	listed     bool
	next       *flow // in the list that it is in
	codel      codel
}

// flowList is a FIFO of flows.
type flowList struct{ head, tail *flow }

func (l *flowList) push(f *flow) {
	if f.next = nil; l.tail == nil {
		l.head = f
	} else {
		l.tail.next = f
	}
	l.tail = f
}

func (l *flowList) pop() *flow {
	f := l.head
	if l.head = f.next; l.head == nil {
		l.tail = nil
	}
	return f
}

// fair is the packets that wait. It is for one goroutine, and without I/O: times are
// of one monotonic clock.
type fair struct {
	free     *slot
	flows    [fairFlows]flow
	new, old flowList
	bytes    int
	seed     uint64
	dropped  func(offload.Packet) // told of each packet that is given up
}

func newFair(room int, seed uint64, dropped func(offload.Packet)) *fair {
	q := &fair{seed: seed, dropped: dropped}
	for range fairSlots {
		q.free = &slot{room: make([]byte, room), next: q.free}
	}
	return q
}

// room returns an empty slot, and nil if all are taken.
func (q *fair) room() *slot {
	s := q.free
	if s != nil {
		q.free, s.next = s.next, nil
	}
	return s
}

// release gives back a slot that room or pop returned.
func (q *fair) release(s *slot) {
	s.pkt = offload.Packet{}
	s.next, q.free = q.free, s
}

// push puts a filled slot at the end of its flow's queue.
func (q *fair) push(s *slot, now time.Duration) {
	f := &q.flows[hash(s.pkt.Data, q.seed)%fairFlows]
	s.at, s.next = now, nil
	if f.tail == nil {
		f.head = s
	} else {
		f.tail.next = s
	}
	f.tail = s
	f.bytes += len(s.pkt.Data)
	q.bytes += len(s.pkt.Data)
	if !f.listed {
		f.listed, f.deficit = true, fairTurn
		q.new.push(f)
	}
	for q.bytes > fairBytes {
		q.giveUp()
	}
}

// giveUp drops the packet that has waited longest in the queue with the most bytes.
func (q *fair) giveUp() {
	fat := &q.flows[0]
	for i := range q.flows {
		if q.flows[i].bytes > fat.bytes {
			fat = &q.flows[i]
		}
	}
	s := q.shift(fat)
	q.dropped(s.pkt)
	q.release(s)
}

// pop returns the packet whose turn it is, and nil if there is none. The caller
// releases it.
func (q *fair) pop(now time.Duration) *slot {
	for {
		list := &q.new
		if list.head == nil {
			list = &q.old
		}
		f := list.head
		if f == nil {
			return nil
		}
		if f.deficit <= 0 {
			f.deficit += fairTurn
			q.old.push(list.pop())
			continue
		}
		s := q.next(f, now)
		if s == nil {
			list.pop()
			if f.listed = list == &q.new && q.old.head != nil; f.listed {
				q.old.push(f) // or a flow that sends little would always be new
			}
			continue
		}
		f.deficit -= len(s.pkt.Data)
		return s
	}
}

// next takes a packet of the flow, after those that CoDel gives up.
func (q *fair) next(f *flow, now time.Duration) *slot {
	for {
		s := q.shift(f)
		if s == nil {
			f.codel.empty()
			return nil
		}
		if !f.codel.drop(now-s.at, now, f.head == nil) {
			return s
		}
		q.dropped(s.pkt)
		q.release(s)
	}
}

func (q *fair) shift(f *flow) *slot {
	s := f.head
	if s == nil {
		return nil
	}
	if f.head = s.next; f.head == nil {
		f.tail = nil
	}
	f.bytes -= len(s.pkt.Data)
	q.bytes -= len(s.pkt.Data)
	return s
}

// codel decides which packets of a queue are given up (RFC 8289, section 5).
type codel struct {
	above    time.Duration // when the grace ends; 0 while the wait is short
	dropping bool
	next     time.Duration // drop
	count    int           // drops of this state
	last     int           // of the state before, when it began
}

// empty says that the queue has nothing left.
func (c *codel) empty() { c.above, c.dropping = 0, false }

// drop decides about a packet that has waited for a while; last says that nothing is
// behind it.
func (c *codel) drop(waited, now time.Duration, last bool) bool {
	long := c.isLong(waited, now, last)
	switch {
	case c.dropping && !long:
		c.dropping = false
	case c.dropping:
		if now < c.next {
			return false
		}
		c.count++
		c.next = c.control(c.next)
		return true
	case long:
		c.dropping = true
		// A queue that has just been in this state goes on from there.
		if since := c.count - c.last; since > 1 && now-c.next < 16*codelGrace {
			c.count = since
		} else {
			c.count = 1
		}
		c.last = c.count
		c.next = c.control(now)
		return true
	}
	return false
}

func (c *codel) isLong(waited, now time.Duration, last bool) bool {
	switch {
	case waited < codelAim || last:
		c.above = 0
	case c.above == 0:
		c.above = now + codelGrace
	default:
		return now >= c.above
	}
	return false
}

func (c *codel) control(from time.Duration) time.Duration {
	return from + time.Duration(float64(codelGrace)/math.Sqrt(float64(c.count)))
}

// hash tells flows apart: by addresses, protocol and ports where the packet is long
// enough to have some. Packets need not be whole.
func hash(pkt []byte, seed uint64) uint32 {
	var addrs, ports []byte
	var proto byte
	switch {
	case len(pkt) < minIPv4:
	case pkt[0]>>4 == 4:
		addrs, proto = pkt[12:20], pkt[9]
		if fragment := pkt[6]&0x3f|pkt[7] != 0; !fragment {
			ports = pkt[min(int(pkt[0]&0x0f)*4, len(pkt)):]
		}
	case len(pkt) >= minIPv6:
		addrs, proto, ports = pkt[8:40], pkt[6], pkt[40:]
	}
	h := mix(seed^uint64(proto), addrs)
	if (proto == protoTCP || proto == protoUDP) && len(ports) >= 4 {
		h = mix(h, ports[:4])
	}
	return uint32(h >> 32)
}

const (
	hashPrime = 0x9e3779b97f4a7c15

	protoTCP = 6
	protoUDP = 17
)

func mix(h uint64, b []byte) uint64 {
	for ; len(b) >= 4; b = b[4:] {
		h ^= uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24
		h *= hashPrime
		h ^= h >> 29
	}
	return h
}
