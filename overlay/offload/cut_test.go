package offload

import (
	"bytes"
	"testing"
)

// cut returns copies of all segments.
func cut(t testing.TB, p Packet, limit int) [][]byte {
	t.Helper()
	var c Cutter
	if !c.Start(p, limit) {
		t.Fatalf("shape %d of %d bytes is not cut to %d", p.Shape, len(p.Data), limit)
	}
	var all [][]byte
	for pkt := c.Next(); pkt != nil; pkt = c.Next() {
		all = append(all, bytes.Clone(pkt))
	}
	if again := c.Next(); again != nil {
		t.Fatalf("%d bytes behind the end", len(again))
	}
	return all
}

// wantSegments completes what was cut and compares it with what a card makes.
func wantSegments(t testing.TB, got [][]byte, want []sample) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d segments, want %d", len(got), len(want))
	}
	for i, pkt := range got {
		p, err := Packet{pkt, Partial}.Complete()
		if err == nil {
			err = verify(p.Data)
		}
		if err != nil {
			t.Fatalf("segment %d: %v", i, err)
		}
		if head := want[i].header(); !bytes.Equal(p.Data, want[i].whole()) {
			t.Fatalf("segment %d: header % x, want % x", i, p.Data[:min(head, len(p.Data))], want[i].whole()[:head])
		}
	}
}

// sizes are payloads and segments of them.
var sizes = map[string]struct{ payload, segment int }{
	"two":                      {2000, 1000},
	"one and a byte":           {1001, 1000},
	"one and all but a byte":   {1999, 1000},
	"three and a half":         {3500, 1000},
	"odd ones":                 {2997, 999},
	"smaller than headers":     {100, 3},
	"as small as can be":       {9, 2},
	"45, as kernels have them": {45 * 1368, 1368},
	"the largest":              {65535 - 112, 1380},
	"of 9000 bytes":            {60_000, 8948},
}

func TestCut(t *testing.T) {
	for name, s := range kinds {
		for what, c := range sizes {
			t.Run(name+"/"+what, func(t *testing.T) {
				s := s.with(c.payload)
				got := cut(t, Packet{s.partial(), Shape(c.segment)}, s.header()+c.segment)
				wantSegments(t, got, s.segments(c.segment))
				var payload []byte
				for i, pkt := range got {
					if n := len(pkt) - s.header(); n != c.segment && i < len(got)-1 {
						t.Errorf("segment %d has %d bytes", i, n)
					}
					payload = append(payload, pkt[s.header():]...)
				}
				if !bytes.Equal(payload, s.payload) {
					t.Error("the payload is another")
				}
			})
		}
	}
}

// What the 65535 bytes of one packet are cut into is all there, for every kind.
func TestCutOfTheLargest(t *testing.T) {
	for name, s := range kinds {
		s := s.with(65535 - s.header())
		p := Packet{s.partial(), 1234}
		counted := p.Segments()
		if got := len(cut(t, p, 1400)); got != counted || len(p.Data) != 65535 {
			t.Errorf("%s: %d segments of %d bytes, counted %d", name, got, len(p.Data), counted)
		}
	}
}

// Flags that mean one place in the stream are on one segment; others are on all.
func TestCutFlags(t *testing.T) {
	const ece, urg = 0x40, 0x20
	for name, c := range map[string]struct {
		flags byte
		want  [3]byte
	}{
		"none":               {0, [3]byte{}},
		"the last one's":     {flagFIN | flagPSH, [3]byte{0, 0, flagFIN | flagPSH}},
		"the first one's":    {flagCWR, [3]byte{flagCWR, 0, 0}},
		"all ones'":          {ece | urg, [3]byte{ece | urg, ece | urg, ece | urg}},
		"some of every kind": {flagCWR | flagPSH | ece, [3]byte{flagCWR | ece, ece, ece | flagPSH}},
	} {
		for _, v6 := range []bool{false, true} {
			s := sample{v6: v6, flags: c.flags}.with(250)
			got := cut(t, Packet{s.partial(), 100}, 1400)
			for i, want := range c.want {
				if flags := got[i][s.l4()+tcpFlags]; flags != want|flagACK {
					t.Errorf("%s: segment %d has flags %#x, want %#x", name, i, flags, want|flagACK)
				}
			}
			wantSegments(t, got, s.segments(100))
		}
	}
}

// Where the way takes less than the kernel thinks, TCP is cut smaller. Datagrams are
// whole or lost: their sender has to hear of it.
func TestCutWhereTheWayTakesLess(t *testing.T) {
	for name, s := range kinds {
		s := s.with(5000)
		for _, c := range []struct {
			what         string
			limit        int
			segment, udp int // 0: refused
		}{
			{"more", s.header() + 1500, 1000, 1000},
			{"as much", s.header() + 1000, 1000, 1000},
			{"a byte less", s.header() + 999, 999, 0},
			{"half", s.header() + 500, 500, 0},
			{"a byte of payload", s.header() + 1, 1, 0},
			{"headers alone", s.header(), 0, 0},
			{"nothing", 0, 0, 0},
		} {
			want := c.segment
			if s.udp {
				want = c.udp
			}
			t.Run(name+"/"+c.what, func(t *testing.T) {
				p := Packet{s.partial(), 1000}
				if want == 0 {
					var cutter Cutter
					if before := bytes.Clone(p.Data); cutter.Start(p, c.limit) || !bytes.Equal(p.Data, before) {
						t.Error("it is cut, or changed")
					}
					return
				}
				got := cut(t, p, c.limit)
				wantSegments(t, got, s.segments(want))
				if len(got[0]) > c.limit {
					t.Errorf("%d bytes", len(got[0]))
				}
			})
		}
	}
}

// One packet passes as it is, if it fits.
func TestCutOfOne(t *testing.T) {
	for name, s := range kinds {
		for _, shape := range []Shape{Whole, Partial} {
			pkt := s.with(100).partial()
			before := bytes.Clone(pkt)
			if got := cut(t, Packet{pkt, shape}, len(pkt)); len(got) != 1 || !bytes.Equal(got[0], before) {
				t.Errorf("%s: shape %d becomes %d packets", name, shape, len(got))
			}
			var c Cutter
			if c.Start(Packet{pkt, shape}, len(pkt)-1) {
				t.Errorf("%s: shape %d fits where it is a byte too large", name, shape)
			}
		}
	}
	any := []byte("no packet at all")
	if got := cut(t, Packet{any, Whole}, 100); len(got) != 1 || !bytes.Equal(got[0], any) {
		t.Error("what is whole is not looked at")
	}
}

// A Cutter forgets: neither a packet left in the middle nor one that did not fit
// shows in the next.
func TestCutAgain(t *testing.T) {
	var c Cutter
	long := sample{v6: true, tcp: timestamps, flags: flagPSH, seq: 77}.with(5000)
	if !c.Start(Packet{long.partial(), 100}, 1400) || c.Next() == nil || c.Next() == nil {
		t.Fatal("not cut")
	}
	if c.Start(Packet{sample{udp: true}.with(3000).partial(), 2000}, 1400) {
		t.Fatal("it does not fit")
	}
	for range 2 {
		s := sample{udp: true, id: 5}.with(30)
		if !c.Start(Packet{s.partial(), 10}, 1400) {
			t.Fatal("not cut")
		}
		var got [][]byte
		for pkt := c.Next(); pkt != nil; pkt = c.Next() {
			got = append(got, bytes.Clone(pkt))
		}
		wantSegments(t, got, s.segments(10))
	}
}
