package wan

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

// dice gives the numbers in turn, three for each frame.
func dice(numbers ...float64) func() float64 {
	return func() float64 {
		n := numbers[0]
		numbers = numbers[1:]
		return n
	}
}

func TestWhatBecomesOfAFrame(t *testing.T) {
	bad := Path{Delay: 10 * ms, Loss: 0.1, Duplicate: 0.2, Reorder: 0.3, ReorderBy: 5 * ms}
	for _, c := range []struct {
		name   string
		path   Path
		dice   []float64 // loss, duplicate, reorder
		due    time.Duration
		copies int
		count  Count
	}{
		{"nothing is set", Path{}, []float64{0, 0, 0}, 7 * ms, 1, Count{Frames: 1, Bytes: 100}},
		{"good luck", bad, []float64{0.1, 0.2, 0.3}, 17 * ms, 1, Count{Frames: 1, Bytes: 100}},
		{"lost", bad, []float64{0.09, 0.1, 0.1}, 0, 0, Count{Frames: 1, Bytes: 100, Lost: 1}},
		{"twice", bad, []float64{0.5, 0.19, 0.5}, 17 * ms, 2, Count{Frames: 1, Bytes: 100, Duplicated: 1}},
		{"late", bad, []float64{0.5, 0.5, 0.29}, 22 * ms, 1, Count{Frames: 1, Bytes: 100, Reordered: 1}},
		{"late and twice", bad, []float64{0.5, 0, 0}, 22 * ms, 2, Count{Frames: 1, Bytes: 100, Reordered: 1, Duplicated: 1}},
		{"late by default", Path{Reorder: 1}, []float64{0.5, 0.5, 0.5}, 8 * ms, 1, Count{Frames: 1, Bytes: 100, Reordered: 1}},
		{"always lost", Path{Loss: 1}, []float64{0.999, 0, 0}, 0, 0, Count{Frames: 1, Bytes: 100, Lost: 1}},
		{"a slow wire", Path{Rate: 100_000, Delay: ms}, []float64{0, 0, 0}, 16 * ms, 1, Count{Frames: 1, Bytes: 100}},
		{"too large", Path{MTU: 85}, []float64{0, 0, 0}, 0, 0, Count{Frames: 1, Bytes: 100, Oversized: 1}},
		{"just small enough", Path{MTU: 86}, []float64{0, 0, 0}, 7 * ms, 1, Count{Frames: 1, Bytes: 100}},
		{"no room", Path{Rate: 100_000, Queue: 99}, []float64{0, 0, 0}, 0, 0, Count{Frames: 1, Bytes: 100, Overflowed: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := shaper{Path: c.path, draw: dice(c.dice...)}
			due, copies := s.enter(7*ms, 100)
			if due != c.due || copies != c.copies || s.count != c.count {
				t.Errorf("due %v, %d copies, %+v; want %v, %d, %+v", due, copies, s.count, c.due, c.copies, c.count)
			}
		})
	}
}

// Frames wait for a wire in order, as many as the queue holds, and an idle wire
// saves nothing up.
func TestRate(t *testing.T) {
	s := newShaper(Path{Rate: 8_000_000, Queue: 3000}, 1) // a byte takes a microsecond
	type arrival struct{ at, due time.Duration }
	const us = time.Microsecond
	for i, a := range []arrival{
		{0, 1000 * us}, {0, 2000 * us}, {0, 3000 * us}, {0, 0}, {999 * us, 0}, {1000 * us, 4000 * us},
		{10_000 * us, 11_000 * us}, {10_000 * us, 12_000 * us},
	} {
		due, copies := s.enter(a.at, 1000)
		if due != a.due || (copies == 1) != (a.due > 0) {
			t.Errorf("frame %d: due %v, %d copies; want %v", i, due, copies, a.due)
		}
	}
	if s.count.Overflowed != 2 {
		t.Errorf("%d overflowed, want 2", s.count.Overflowed)
	}
}

// Chance keeps to the shares, is the same with the same seed, and does not depend on
// the rest of the path.
func TestChance(t *testing.T) {
	const frames = 100_000
	count := func(p Path, seed uint64) Count {
		s := newShaper(p, seed)
		for i := range frames {
			s.enter(time.Duration(i)*ms, 100)
		}
		return s.count
	}
	p := Path{Loss: 0.01, Duplicate: 0.02, Reorder: 0.03}
	one := count(p, 1)
	for _, share := range []struct {
		name string
		got  uint64
		want float64
	}{{"lost", one.Lost, 0.01}, {"twice", one.Duplicated, 0.02}, {"late", one.Reordered, 0.03}} {
		if got := float64(share.got) / frames; got < 0.9*share.want || got > 1.1*share.want {
			t.Errorf("%s: %v of all, want about %v", share.name, got, share.want)
		}
	}
	if again := count(p, 1); again != one {
		t.Errorf("the same seed: %+v, then %+v", one, again)
	}
	if other := count(p, 2); other == one {
		t.Errorf("another seed, the same luck: %+v", other)
	}
	slow := p
	slow.Delay, slow.Duplicate = time.Second, 0.5
	if got := count(slow, 1).Lost; got != one.Lost {
		t.Errorf("on a slower path %d are lost, on this one %d", got, one.Lost)
	}
}

func TestPathCheck(t *testing.T) {
	for _, p := range []Path{{Loss: -0.1}, {Loss: 1.1}, {Duplicate: 2}, {Reorder: -1}, {Delay: -1}, {Rate: -1}, {Queue: -1}, {MTU: -1}, {ReorderBy: -1}} {
		if p.check() == nil {
			t.Errorf("no word against %+v", p)
		}
	}
	if err := (Path{Loss: 1, Delay: time.Hour}).check(); err != nil {
		t.Error(err)
	}
}

// The heap gives frames by time, and those of one time in their order.
func TestSky(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	type key struct {
		due   time.Duration
		order byte
	}
	var s sky
	var want []key
	for round := range 50 {
		for i := range random.IntN(40) {
			k := key{time.Duration(round + random.IntN(8)), byte(i)}
			s.push(k.due, []byte{byte(k.due), k.order})
			want = append(want, k)
		}
		slices.SortStableFunc(want, func(a, b key) int { return int(a.due - b.due) })
		for range random.IntN(40) {
			if len(want) == 0 {
				break
			}
			if next, frame := s.next(), s.pop(); next != want[0].due || frame[0] != byte(next) || frame[1] != want[0].order {
				t.Fatalf("round %d: %v %v, want %v", round, next, frame, want[0])
			}
			want = want[1:]
		}
		if s.len() != len(want) {
			t.Fatalf("%d frames, want %d", s.len(), len(want))
		}
	}
}

// A frame on its way costs nothing but the way.
func BenchmarkFrame(b *testing.B) {
	d := direction{shaper: newShaper(Path{Delay: 10 * ms, Loss: 0.01, Reorder: 0.01}, 1)}
	frame := make([]byte, 1514)
	now := time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		now += 28 * time.Microsecond
		due, copies := d.shaper.enter(now, len(frame))
		for range copies {
			d.sky.push(due, append(d.buffer(1518), frame...))
		}
		for d.sky.len() > 0 && d.sky.next() <= now {
			d.spare = append(d.spare, d.sky.pop()[:0])
		}
	}
}
