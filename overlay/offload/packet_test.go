package offload

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
)

func TestHeader(t *testing.T) {
	h := Header{Flags: 1, Type: 0x84, Length: 0x0203, SegmentSize: 0x0405, ChecksumStart: 0x0607, ChecksumOffset: 0x0809}
	b := bytes.Repeat([]byte{0xee}, HeaderSize+2)
	h.Encode(b)
	want := []byte{1, 0x84}
	for _, n := range []uint16{0x0203, 0x0405, 0x0607, 0x0809} { // in the machine's order: it is no wire
		want = binary.NativeEndian.AppendUint16(want, n)
	}
	if !bytes.Equal(b, append(want, 0xee, 0xee)) {
		t.Errorf("% x, want % x and nothing behind", b, want)
	}
	if got := DecodeHeader(b); got != h {
		t.Errorf("%+v, want %+v", got, h)
	}
	for kind, udp := range map[uint8]bool{0: false, 1: false, 4: false, 5: true, 0x81: false, 0x84: false} {
		if got := (Header{Type: kind}).IsRun(); got != udp {
			t.Errorf("type %#x: a run of datagrams: %v", kind, got)
		}
	}
}

// take is a packet of the device and what is to be made of it.
type take struct {
	s     sample
	size  int           // of segments
	head  func(*Header) // the last word
	shape Shape
	bad   bool
	whole bool // completed, with the right checksum
}

func (c take) check(t *testing.T) {
	t.Helper()
	h, data := c.s.kernel(c.size), c.s.partial()
	if c.head != nil {
		c.head(&h)
	}
	p, err := Take(h, data)
	if c.bad {
		if err != ErrPacket {
			t.Errorf("shape %d, error %v, want ErrPacket", p.Shape, err)
		}
		return
	}
	if err != nil || p.Shape != c.shape || &p.Data[0] != &data[0] || len(p.Data) != len(data) {
		t.Fatalf("shape %d of %d bytes, error %v, want shape %d of %d", p.Shape, len(p.Data), err, c.shape, len(data))
	}
	if !p.Valid() {
		t.Error("others would not take it")
	}
	if c.whole && !bytes.Equal(p.Data, c.s.whole()) {
		t.Error("it is not completed")
	}
	if c.shape.Large() && !bytes.Equal(p.Data, c.s.partial()) {
		t.Error("it is changed")
	}
}

func TestTakeOfEveryKind(t *testing.T) {
	for name, s := range kinds {
		for what, c := range map[string]take{
			"nothing left out":             {s: s.with(10), head: func(h *Header) { *h = Header{} }, shape: Whole},
			"a card has checked it":        {s: s.with(10), head: func(h *Header) { *h = Header{Flags: 2} }, shape: Whole},
			"no checksum":                  {s: s.with(10), shape: Partial},
			"no checksum and no data":      {s: s.with(0), shape: Partial},
			"to be cut":                    {s: s.with(3001), size: 1000, shape: 1000},
			"to be cut as small as can be": {s: s.with(5), size: 2, shape: 2},
			"the largest":                  {s: s.with(65535 - s.header()), size: 1400, shape: 1400},
			"one segment":                  {s: s.with(1000), size: 1000, shape: Partial},
			"less than one segment":        {s: s.with(1), size: 1000, shape: Partial},
			"a header length that is off":  {s: s.with(3001), size: 1000, shape: 1000, head: func(h *Header) { h.Length = 7 }},
			"segments of 1 byte":           {s: s.with(10), size: 1, shape: 1},
			"segments of no size":          {s: s.with(10), size: 9, head: func(h *Header) { h.SegmentSize = 0 }, bad: true},
			"to be cut, with a checksum":   {s: s.with(10), size: 5, head: func(h *Header) { h.Flags = 0 }, bad: true},
			"the other IP's segments":      {s: s.with(10), size: 5, head: func(h *Header) { h.Type = 1 + 4 - h.Type&0x7f + uint8(b2i(s.udp)) }, bad: true},
			"the old fragments of UDP":     {s: s.with(10), size: 5, head: func(h *Header) { h.Type = 3 }, bad: true},
			"segments of nobody":           {s: s.with(10), size: 5, head: func(h *Header) { h.Type = 0x7f }, bad: true},
			"ECN alone":                    {s: s.with(10), size: 5, head: func(h *Header) { h.Type = 0x80 }, bad: true},
			"cut, checksum from elsewhere": {s: s.with(10), size: 5, head: func(h *Header) { h.ChecksumStart += 2 }, bad: true},
			"cut, checksum to elsewhere":   {s: s.with(10), size: 5, head: func(h *Header) { h.ChecksumOffset += 2 }, bad: true},
			"cut, begun elsewhere":         {s: s.with(10), size: 5, head: func(h *Header) { h.ChecksumStart -= 2; h.ChecksumOffset += 2 }, bad: true},
			"a checksum behind the end":    {s: s.with(10), head: func(h *Header) { h.ChecksumStart = 10_000 }, bad: true},
			"a checksum far behind":        {s: s.with(10), head: func(h *Header) { h.ChecksumStart, h.ChecksumOffset = math.MaxUint16, math.MaxUint16 }, bad: true},
			"a checksum over the end":      {s: s.with(10), head: func(h *Header) { h.ChecksumOffset = uint16(s.header() + 10 - s.l4() - 1) }, bad: true},
		} {
			t.Run(name+"/"+what, c.check)
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestTakeECN(t *testing.T) {
	for name, s := range kinds {
		if s.flags = flagCWR; !s.udp {
			t.Run(name, take{s: s.with(100), size: 30, shape: 30}.check)
		}
	}
}

// What cannot be left to others is completed here: a transport that only its ends
// know, a checksum that is not where it usually is, a datagram that lies about itself.
func TestTakeCompletes(t *testing.T) {
	at := func(offset int, b ...byte) func([]byte) { return func(pkt []byte) { copy(pkt[offset:], b) } }
	for name, c := range map[string]struct {
		s          sample
		start, off int
	}{
		"another protocol":            {sample{udp: true, edit: at(9, 136)}.with(30), 20, 6},
		"another protocol over IPv6":  {sample{v6: true, edit: at(6, 58)}.with(30), 40, 2},
		"a fragment, the first":       {sample{edit: at(6, 0x20)}.with(30), 20, 16},
		"a fragment, the last":        {sample{edit: at(6, 0, 2)}.with(30), 20, 16},
		"a fragment of IPv6":          {sample{v6: true, ext: []byte{protoHopByHop}, edit: at(40, 44)}.with(30), 56, 16},
		"a routing header":            {sample{v6: true, ext: []byte{43}}.with(30), 56, 16},
		"a header of 264 bytes":       {sample{v6: true, ext: make([]byte, 14)}.with(30), 264, 16},
		"begun elsewhere":             {sample{}.with(30), 18, 18},
		"a tunnel's inner checksum":   {sample{udp: true}.with(60), 48, 6},
		"an outer one, by its start":  {sample{udp: true}.with(60), 0, 10},
		"a length that is not UDP's":  {sample{udp: true, edit: at(24, 0, 9)}.with(30), 20, 6},
		"a length less than a header": {sample{v6: true, udp: true, edit: at(44, 0, 0)}.with(30), 40, 6},
		"not as long as it says":      {sample{edit: at(2, 0, 41)}.with(30), 20, 16},
	} {
		t.Run(name, func(t *testing.T) {
			pkt := c.s.bytes()
			copy(pkt[c.start+c.off:], []byte{0x12, 0x34}) // what the kernel has counted
			want := bytes.Clone(pkt)
			binary.BigEndian.PutUint16(want[c.start+c.off:], ^naive(pkt[c.start:]))
			p, err := Take(Header{Flags: 1, ChecksumStart: uint16(c.start), ChecksumOffset: uint16(c.off)}, pkt)
			if err != nil || p.Shape != Whole || !bytes.Equal(p.Data, want) {
				t.Errorf("shape %d, error %v, completed %v", p.Shape, err, bytes.Equal(p.Data, want))
			}
		})
	}
}

// What is no packet that can be cut is not taken for one, whoever says so.
func TestWhatCannotBeCut(t *testing.T) {
	set := func(offset int, b ...byte) func([]byte) { return func(pkt []byte) { copy(pkt[offset:], b) } }
	for name, s := range map[string]sample{
		"a fragment":                    {edit: set(6, 0x20)},
		"another fragment":              {edit: set(6, 0x00, 0x01)},
		"another protocol":              {edit: set(9, 1)},
		"version 5":                     {edit: set(0, 0x55)},
		"an IPv4 header of 16 bytes":    {edit: set(0, 0x44)},
		"an IPv4 header over the end":   {edit: set(0, 0x4f)},
		"longer than it is":             {edit: set(2, 0xff, 0xff)},
		"shorter than it is":            {edit: set(2, 0x00, 0x28)},
		"a TCP header of 16 bytes":      {edit: set(32, 0x40)},
		"a TCP header over the end":     {edit: set(32, 0xf0)},
		"IPv6, longer than it is":       {v6: true, edit: set(4, 0xff, 0xff)},
		"IPv6, a fragment":              {v6: true, ext: []byte{0}, edit: set(40, 44)},
		"IPv6, another protocol":        {v6: true, edit: set(6, 58)},
		"IPv6, extensions over the end": {v6: true, ext: []byte{60}, edit: set(41, 0xff)},
		"IPv6, a routing header":        {v6: true, ext: []byte{43}},
		"IPv6, too many headers":        {v6: true, ext: make([]byte, 14)},
	} {
		t.Run(name, func(t *testing.T) {
			s := s.with(20)
			pkt := s.bytes()
			if p, err := Take(s.kernel(10), pkt); err != ErrPacket {
				t.Errorf("taken as shape %d, error %v", p.Shape, err)
			}
			for _, shape := range []Shape{Partial, 10} {
				if (Packet{pkt, shape}).Valid() {
					t.Errorf("valid as shape %d", shape)
				}
			}
			if !(Packet{pkt, Whole}).Valid() {
				t.Error("not valid as a whole packet: that is for the network to decide")
			}
			var c Cutter
			if c.Start(Packet{pkt, 10}, 1400) {
				t.Error("cut")
			}
			if n := (Packet{pkt, 10}).Segments(); n != 1 {
				t.Errorf("counted as %d packets", n)
			}
		})
	}
}

func TestValid(t *testing.T) {
	liar := sample{udp: true, edit: func(pkt []byte) { pkt[25]-- }}.with(20)
	for name, c := range map[string]struct {
		p    Packet
		want bool
	}{
		"whole, whatever it is":       {Packet{[]byte{1, 2, 3}, Whole}, true},
		"partial":                     {Packet{sample{}.with(20).partial(), Partial}, true},
		"partial without data":        {Packet{sample{}.partial(), Partial}, true},
		"partial, no packet":          {Packet{[]byte{1, 2, 3}, Partial}, false},
		"partial, empty":              {Packet{nil, Partial}, false},
		"two segments":                {Packet{sample{}.with(20).partial(), 19}, true},
		"one segment":                 {Packet{sample{}.with(20).partial(), 20}, false},
		"less than a segment":         {Packet{sample{}.with(20).partial(), 21}, false},
		"the largest segment":         {Packet{sample{}.with(20).partial(), math.MaxUint16 - 1}, false},
		"a datagram's length is off":  {Packet{liar.partial(), Partial}, false},
		"likewise, of segments":       {Packet{liar.partial(), 7}, false},
		"cut short":                   {Packet{sample{}.with(20).partial()[:59], Partial}, false},
		"cut short within the header": {Packet{sample{v6: true}.partial()[:39], 7}, false},
	} {
		if got := c.p.Valid(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestSegments(t *testing.T) {
	for name, s := range kinds {
		for _, c := range []struct {
			shape Shape
			want  int
		}{{Whole, 1}, {Partial, 1}, {2, 500}, {3, 334}, {500, 2}, {999, 2}} {
			if got := (Packet{s.with(1000).partial(), c.shape}).Segments(); got != c.want {
				t.Errorf("%s as shape %d: %d packets, want %d", name, c.shape, got, c.want)
			}
		}
	}
}
