package offload

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

func TestChecksum(t *testing.T) {
	for name, c := range map[string]struct {
		sum  uint32
		b    []byte
		want uint16
	}{
		"nothing":                     {0, nil, 0xffff},
		"zeros":                       {0, make([]byte, 20), 0xffff},
		"RFC 1071, section 3":         {0, []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, ^uint16(0xddf2)},
		"an odd byte is the high one": {0, []byte{0x12}, ^uint16(0x1200)},
		"ones stay ones":              {0, bytes.Repeat([]byte{0xff}, 1<<16), 0},
		"ones and an odd one":         {0, bytes.Repeat([]byte{0xff}, 9), ^uint16(0xff00)},
		"a carry out of 64 bits":      {1, bytes.Repeat([]byte{0xff}, 8), ^uint16(1)},
		"a sum to start with":         {0x11, []byte{0x00, 0x01}, ^uint16(0x12)},
		"a sum that is not folded":    {0x00030004, nil, ^uint16(7)},
		"the largest sum":             {0xffffffff, []byte{0x00, 0x01}, ^uint16(1)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Checksum(c.sum, c.b); got != c.want {
				t.Errorf("%04x, want %04x", got, c.want)
			}
		})
	}
}

// Whatever the length and the bytes, it is what the text of the RFC says.
func TestChecksumOfAnything(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 2000)
	for i := range b {
		b[i] = byte(r.Uint32() | r.Uint32()) // many ones, many carries
	}
	for from := range 9 {
		for n := range 600 {
			if got, want := Checksum(0, b[from:from+n]), ^naive(b[from:from+n]); got != want {
				t.Fatalf("%d bytes from %d: %04x, want %04x", n, from, got, want)
			}
		}
	}
	for range 20_000 {
		from := r.IntN(len(b))
		part := b[from : from+r.IntN(len(b)-from)]
		start := r.Uint32()
		sum := binary.BigEndian.AppendUint32(nil, start)
		if got, want := Checksum(start, part), ^naive(append(sum, part...)); got != want {
			t.Fatalf("%d bytes, begun with %08x: %04x, want %04x", len(part), start, got, want)
		}
	}
}

func TestComplete(t *testing.T) {
	for name, s := range kinds {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{0, 1, 2, 3, 7, 8, 9, 536, 1399, 1400, 65535 - 112} {
				s := s.with(n)
				p, err := Packet{s.partial(), Partial}.Complete()
				if err != nil || p.Shape != Whole {
					t.Fatalf("%d bytes: shape %d, error %v", n, p.Shape, err)
				}
				if !bytes.Equal(p.Data, s.whole()) {
					t.Fatalf("%d bytes: % x, want % x", n, p.Data[:s.header()], s.whole()[:s.header()])
				}
				if err := verify(p.Data); err != nil {
					t.Fatalf("%d bytes: %v", n, err)
				}
			}
		})
	}
}

// A receiver finds out about each single byte that is not what was sent.
func TestCompleteProtectsEveryByte(t *testing.T) {
	for name, s := range kinds {
		t.Run(name, func(t *testing.T) {
			s := s.with(100)
			p, err := Packet{s.partial(), Partial}.Complete()
			if err != nil {
				t.Fatal(err)
			}
			for i := s.l4(); i < len(p.Data); i++ {
				p.Data[i] ^= 0x10
				if verify(p.Data) == nil {
					t.Errorf("byte %d may be wrong", i)
				}
				p.Data[i] ^= 0x10
			}
		})
	}
}

// What a Partial packet has in the checksum's place is of no account: who sends it
// may have cut it off a larger one.
func TestCompleteStartsAnew(t *testing.T) {
	for name, s := range kinds {
		s := s.with(33)
		pkt := s.partial()
		copy(pkt[s.sum():], []byte{0xab, 0xcd})
		p, err := Packet{pkt, Partial}.Complete()
		if err != nil || !bytes.Equal(p.Data, s.whole()) {
			t.Errorf("%s: error %v, checksum % x", name, err, pkt[s.sum():s.sum()+2])
		}
	}
}

// A datagram whose sum is 0 says 0xffff, as 0 would say that nobody has counted (RFC 768).
func TestCompleteOfZero(t *testing.T) {
	for name, s := range map[string]sample{"IPv4": {udp: true}, "IPv6": {udp: true, v6: true}} {
		s := s.with(2)
		s.payload[0], s.payload[1] = 0, 0
		whole := s.whole()
		copy(s.payload, whole[s.sum():s.sum()+2]) // which makes all of it ones
		p, err := Packet{s.partial(), Partial}.Complete()
		if err != nil || p.Data[s.sum()] != 0xff || p.Data[s.sum()+1] != 0xff {
			t.Errorf("%s: checksum % x, error %v", name, p.Data[s.sum():s.sum()+2], err)
		}
		if err := verify(p.Data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCompleteOfOtherShapes(t *testing.T) {
	broken := sample{}.with(10).whole()
	broken[len(broken)-1]++
	before := bytes.Clone(broken)
	p, err := Packet{broken, Whole}.Complete()
	if err != nil || p.Shape != Whole || !bytes.Equal(p.Data, before) {
		t.Errorf("a whole packet is changed: error %v", err)
	}
	if _, err := (Packet{sample{}.with(10).partial(), 5}).Complete(); err != ErrPacket {
		t.Errorf("a packet to be cut: %v", err)
	}
	if _, err := (Packet{[]byte{0x45, 0, 0}, Partial}).Complete(); err != ErrPacket {
		t.Errorf("no packet: %v", err)
	}
}
