package offload

import "testing"

// largest is what a kernel hands over most often when it has much to send.
var largest = sample{tcp: timestamps, flags: flagPSH}.with(45 * 1368)

// roundTrip takes a packet, cuts it, merges it and gives it back to the kernel.
func roundTrip(c *Cutter, m *Merger, data []byte) (Header, [][]byte) {
	p, err := Take(largest.kernel(1368), data)
	if err != nil || !c.Start(p, 1420) {
		panic("it cannot be cut")
	}
	// The segments share one memory, so only the first is left whole by the next:
	// each goes where it would be unsealed to.
	at := 0
	for pkt := c.Next(); pkt != nil; pkt = c.Next() {
		one := arrived[at : at+len(pkt) : at+len(pkt)]
		at += copy(one, pkt)
		if !m.Add(Packet{one, Partial}) {
			panic("it is not merged")
		}
	}
	return m.Take()
}

var arrived = make([]byte, 2*BufferSize)

func TestNothingIsAllocated(t *testing.T) {
	var c Cutter
	var m Merger
	data := largest.partial()
	before := append([]byte(nil), data...)
	if n := testing.AllocsPerRun(100, func() {
		copy(data, before)
		if h, parts := roundTrip(&c, &m, data); h != largest.kernel(1368) || len(parts) != 45 {
			t.Fatalf("header %+v, %d parts", h, len(parts))
		}
	}); n != 0 {
		t.Errorf("%v allocations for one packet", n)
	}
	one := sample{udp: true}.with(1000).partial()
	if n := testing.AllocsPerRun(100, func() {
		p, _ := Take(sample{udp: true}.kernel(0), one)
		if p, err := p.Complete(); err != nil || !p.Valid() || p.Segments() != 1 || Checksum(0, p.Data) == 1 {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations to complete a packet", n)
	}
}

func BenchmarkCutMerge(b *testing.B) {
	var c Cutter
	var m Merger
	data := largest.partial()
	before := append([]byte(nil), data...)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		copy(data, before)
		roundTrip(&c, &m, data)
	}
}

func BenchmarkChecksum(b *testing.B) {
	data := largest.partial()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		Checksum(0, data)
	}
}
