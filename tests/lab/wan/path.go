package wan

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Path is one direction of a link. The zero value delivers everything at once.
type Path struct {
	Delay     time.Duration // from end to end, besides what Rate makes of it
	Loss      float64       // share of frames that is lost: 0..1
	Duplicate float64       // share of frames that arrives twice
	Reorder   float64       // share of frames that takes ReorderBy longer, and so is overtaken
	ReorderBy time.Duration // 0: a millisecond
	Rate      int64         // bits per second, counted as the wire counts: frames without preamble and gap; 0: no limit
	Queue     int           // bytes that wait for Rate at most, others are lost; 0: DefaultQueue
	MTU       int           // larger packets are lost and nobody is told; 0: no limit
}

// ethernetHeader is what a frame is longer than its packet.
const ethernetHeader = 14

// DefaultQueue is the queue of a path with a rate and none of its own.
const DefaultQueue = 256 << 10

// Count is what became of the frames of one direction.
type Count struct {
	Frames     uint64 // that entered
	Bytes      uint64 // in them
	Lost       uint64 // by Loss
	Duplicated uint64 // delivered twice
	Reordered  uint64 // delayed by ReorderBy
	Overflowed uint64 // lost for want of room in Queue
	Oversized  uint64 // lost by MTU
	Delivered  uint64 // written to the other end, duplicates included
	Refused    uint64 // not taken by the other end's kernel
}

func (p Path) check() error {
	for name, share := range map[string]float64{"Loss": p.Loss, "Duplicate": p.Duplicate, "Reorder": p.Reorder} {
		if !(share >= 0 && share <= 1) {
			return fmt.Errorf("%s is %v: want a share from 0 to 1", name, share)
		}
	}
	if p.Delay < 0 || p.ReorderBy < 0 || p.Rate < 0 || p.Queue < 0 || p.MTU < 0 {
		return fmt.Errorf("%+v: nothing of it may be negative", p)
	}
	return nil
}

// shaper decides what becomes of frames. It is a value without I/O: times are of one
// monotonic clock, and chance is what draw returns, from 0 up to but not including 1.
type shaper struct {
	Path
	draw  func() float64
	free  time.Duration // when the wire is done with the frames before
	count Count
}

func newShaper(p Path, seed uint64) shaper {
	random := rand.New(rand.NewPCG(seed, seed))
	return shaper{Path: p, draw: random.Float64}
}

// enter takes a frame of size bytes at the time now. It returns how often the frame
// is to be delivered, and when. Three numbers are drawn for each frame, whatever the
// path, so that one setting does not change the luck of another.
func (s *shaper) enter(now time.Duration, size int) (due time.Duration, copies int) {
	s.count.Frames++
	s.count.Bytes += uint64(size)
	lost, twice, late := s.draw() < s.Loss, s.draw() < s.Duplicate, s.draw() < s.Reorder
	if s.MTU > 0 && size > s.MTU+ethernetHeader {
		s.count.Oversized++
		return 0, 0
	}
	if lost {
		s.count.Lost++
		return 0, 0
	}
	due, fits := s.transmit(now, size)
	if !fits {
		s.count.Overflowed++
		return 0, 0
	}
	due += s.Delay
	if late {
		s.count.Reordered++
		due += s.reorderBy()
	}
	if twice {
		s.count.Duplicated++
		return due, 2
	}
	return due, 1
}

func (s *shaper) reorderBy() time.Duration {
	if s.ReorderBy == 0 {
		return time.Millisecond
	}
	return s.ReorderBy
}

// transmit puts a frame behind those that wait for the wire, and returns when it has
// left.
func (s *shaper) transmit(now time.Duration, size int) (left time.Duration, fits bool) {
	if s.Rate == 0 {
		return now, true
	}
	queue := s.Queue
	if queue == 0 {
		queue = DefaultQueue
	}
	s.free = max(s.free, now)
	if waiting := int64(s.free-now) * s.Rate / (8 * int64(time.Second)); waiting+int64(size) > int64(queue) {
		return 0, false
	}
	s.free += time.Duration(int64(size) * 8 * int64(time.Second) / s.Rate)
	return s.free, true
}

// flight is a frame on its way.
type flight struct {
	due   time.Duration
	order uint64 // of entry: frames that are due at the same time keep it
	frame []byte
}

func (f flight) before(o flight) bool {
	return f.due < o.due || f.due == o.due && f.order < o.order
}

// sky is the frames on their way, a heap with the next one on top.
type sky struct {
	flights []flight
	order   uint64
}

func (s *sky) len() int { return len(s.flights) }

// next is when the next frame is due. There must be one.
func (s *sky) next() time.Duration { return s.flights[0].due }

func (s *sky) push(due time.Duration, frame []byte) {
	s.order++
	s.flights = append(s.flights, flight{due, s.order, frame})
	all := s.flights
	for i := len(all) - 1; i > 0; {
		parent := (i - 1) / 2
		if !all[i].before(all[parent]) {
			return
		}
		all[i], all[parent] = all[parent], all[i]
		i = parent
	}
}

// pop takes the next frame out.
func (s *sky) pop() []byte {
	frame := s.flights[0].frame
	last := len(s.flights) - 1
	s.flights[0] = s.flights[last]
	s.flights[last] = flight{}
	s.flights = s.flights[:last]
	all := s.flights
	for i := 0; ; {
		least := i
		for _, child := range [2]int{2*i + 1, 2*i + 2} {
			if child < len(all) && all[child].before(all[least]) {
				least = child
			}
		}
		if least == i {
			return frame
		}
		all[i], all[least] = all[least], all[i]
		i = least
	}
}
