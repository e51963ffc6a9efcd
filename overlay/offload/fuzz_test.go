package offload

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// Whatever a kernel hands over, what is made of it is what a peer takes, or nothing.
func FuzzTake(f *testing.F) {
	header := func(h Header) []byte {
		b := make([]byte, HeaderSize)
		h.Encode(b)
		return b
	}
	for _, s := range kinds {
		f.Add(header(s.kernel(0)), s.with(100).partial())
		f.Add(header(s.kernel(30)), s.with(100).partial())
		f.Add(header(Header{}), s.with(3).whole())
		f.Add(header(Header{Flags: 1, ChecksumStart: 3, ChecksumOffset: 5}), s.partial())
	}
	f.Fuzz(func(t *testing.T, head, data []byte) {
		if len(head) < HeaderSize {
			return
		}
		h := DecodeHeader(head)
		n := len(data)
		p, err := Take(h, data)
		if err != nil {
			return
		}
		if len(p.Data) != n || !p.Valid() || p.Segments() < 1 {
			t.Fatalf("shape %d of %d bytes is not valid", p.Shape, len(p.Data))
		}
		if p.Shape != Whole {
			wantSame(t, merge(new(Merger), []Packet{{bytes.Clone(data), p.Shape}}), apart(t, []Packet{p}))
		}
	})
}

// What is cut is put together again, whatever the packet and the size.
func FuzzCutMerge(f *testing.F) {
	for _, s := range kinds {
		f.Add(s.with(100).bytes(), uint16(30), uint16(1400))
		f.Add(s.with(100).bytes(), uint16(99), uint16(90))
	}
	f.Fuzz(func(t *testing.T, pkt []byte, shape, limit uint16) {
		p := Packet{mend(pkt), Shape(shape)}
		if !p.Valid() || len(pkt) == 0 {
			return
		}
		whole := apart(t, []Packet{p})
		before := bytes.Clone(p.Data)
		var c Cutter
		if !c.Start(p, int(limit)) {
			if !bytes.Equal(p.Data, before) {
				t.Fatal("what is not cut is changed")
			}
			return
		}
		var pkts []Packet
		bytesIn, bytesOut := 0, 0
		for one := c.Next(); one != nil; one = c.Next() {
			if len(one) > int(limit) {
				t.Fatalf("%d bytes, at most %d", len(one), limit)
			}
			pkts = append(pkts, Packet{bytes.Clone(one), p.Shape.Segment()})
		}
		cutOnce := apart(t, pkts)
		for _, one := range whole {
			bytesIn += payloadOf(one)
		}
		for _, one := range cutOnce {
			bytesOut += payloadOf(one)
		}
		if bytesIn != bytesOut {
			t.Fatalf("%d bytes of payload become %d", bytesIn, bytesOut)
		}
		wantSame(t, merge(new(Merger), pkts), cutOnce)
	})
}

// payloadOf is how many bytes of payload a packet has, and of another, all of them.
func payloadOf(pkt []byte) int {
	l, ok := find(pkt)
	if !ok {
		return len(pkt)
	}
	return len(pkt) - l.payload
}

// mend gives a packet its right lengths, without which it would only be refused.
func mend(pkt []byte) []byte {
	pkt = bytes.Clone(pkt)
	if len(pkt) < ipv4Header || len(pkt) > maxPacket {
		return pkt
	}
	switch {
	case pkt[0]>>4 == 4:
		binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
		pkt[6] &= 0xc0
		pkt[7] = 0
	case len(pkt) >= ipv6Header:
		binary.BigEndian.PutUint16(pkt[4:], uint16(len(pkt)-ipv6Header))
	}
	if l, _ := find(pkt); !l.tcp && l.payload > 0 && l.payload <= len(pkt) { // a datagram
		binary.BigEndian.PutUint16(pkt[l.l4+4:], uint16(len(pkt)-l.l4))
	}
	return pkt
}

// Whatever valid packets come, all of them go on, once and in order.
func FuzzMerge(f *testing.F) {
	for _, s := range kinds {
		var b []byte
		for i, one := range s.with(100).segments(25) {
			b = appendFuzz(b, Packet{one.bytes(), Partial * Shape(i&1)})
			b = appendFuzz(b, Packet{one.bytes(), Partial})
			b = appendFuzz(b, Packet{one.bytes(), 7})
		}
		f.Add(b)
		b = nil
		for _, one := range s.with(100).segments(25) {
			b = appendFuzz(b, Packet{one.bytes(), Partial})
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var pkts []Packet
		for len(b) >= 4 && len(pkts) < 200 {
			shape, n := Shape(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:]))
			n = min(n, len(b)-4)
			if p := (Packet{mend(b[4 : 4+n]), shape}); p.Valid() && n > 0 {
				pkts = append(pkts, p)
			}
			b = b[4+n:]
		}
		want := apart(t, pkts)
		wantSame(t, merge(new(Merger), pkts), want)
	})
}

func appendFuzz(b []byte, p Packet) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(p.Shape))
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.Data)))
	return append(b, p.Data...)
}
