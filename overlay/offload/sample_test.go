package offload

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// sample describes a packet, and is how tests say what they expect: bytes writes it
// without the code under test. The zero value is TCP over IPv4, an ACK without data.
type sample struct {
	v6, udp bool
	options []byte // of IPv4, four bytes or a multiple
	ext     []byte // protocol numbers of IPv6 extension headers, of 16 bytes each
	tcp     []byte // options of TCP
	id      uint16
	seq     uint32
	flags   byte // besides ACK
	payload []byte
	edit    func(pkt []byte) // the last word
}

// kinds are the packets that can be cut. Every test of cutting and merging has all.
var kinds = map[string]sample{
	"TCP over IPv4":                    {},
	"TCP over IPv6":                    {v6: true},
	"UDP over IPv4":                    {udp: true},
	"UDP over IPv6":                    {v6: true, udp: true},
	"TCP with options":                 {tcp: timestamps},
	"TCP with options over IPv6":       {v6: true, tcp: timestamps},
	"TCP over IPv4 with options":       {options: []byte{1, 1, 1, 0}},
	"UDP over IPv4 with options":       {udp: true, options: []byte{1, 1, 1, 1, 1, 1, 1, 0}},
	"TCP behind a hop-by-hop header":   {v6: true, ext: []byte{protoHopByHop}},
	"UDP behind a destination header":  {v6: true, udp: true, ext: []byte{protoDestination}},
	"TCP behind two extension headers": {v6: true, ext: []byte{protoHopByHop, protoDestination}, tcp: timestamps},
	"the number after the last":        {id: 0xffff, seq: 0xffffffff},
}

var timestamps = []byte{1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 3, 4}

// with returns the sample with a payload of n bytes, always the same ones.
func (s sample) with(n int) sample {
	s.payload = make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(s.payload)
	return s
}

// l4 is the offset of the transport header.
func (s sample) l4() int {
	if s.v6 {
		return 40 + 16*len(s.ext)
	}
	return 20 + len(s.options)
}

func (s sample) proto() byte {
	if s.udp {
		return 17
	}
	return 6
}

// header is the size of all headers.
func (s sample) header() int {
	if s.udp {
		return s.l4() + 8
	}
	return s.l4() + 20 + len(s.tcp)
}

// sum is the offset of the transport checksum.
func (s sample) sum() int {
	if s.udp {
		return s.l4() + 6
	}
	return s.l4() + 16
}

// bytes is the packet, whose transport checksum is 0.
func (s sample) bytes() []byte {
	pkt := make([]byte, s.header(), s.header()+len(s.payload))
	pkt = append(pkt, s.payload...)
	be := binary.BigEndian
	if s.v6 {
		pkt[0], pkt[1], pkt[6], pkt[7] = 0x60, 0x20, s.proto(), 64
		be.PutUint16(pkt[4:], uint16(len(pkt)-40))
		copy(pkt[8:], "\xfd\x00source address\xfd\x00destination..")
		at := &pkt[6]
		for i, number := range s.ext {
			*at, pkt[40+16*i], pkt[40+16*i+1] = number, s.proto(), 1
			copy(pkt[40+16*i+2:], []byte{1, 12}) // PadN
			at = &pkt[40+16*i]
		}
	} else {
		pkt[0], pkt[1], pkt[6], pkt[8], pkt[9] = byte(0x40|s.l4()/4), 0x10, 0x40, 64, s.proto()
		be.PutUint16(pkt[2:], uint16(len(pkt)))
		be.PutUint16(pkt[4:], s.id)
		copy(pkt[12:], []byte{10, 1, 2, 3, 10, 4, 5, 6})
		copy(pkt[20:], s.options)
	}
	l4 := pkt[s.l4():]
	be.PutUint16(l4[0:], 40000)
	be.PutUint16(l4[2:], 443)
	if s.udp {
		be.PutUint16(l4[4:], uint16(len(l4)))
	} else {
		be.PutUint32(l4[4:], s.seq)
		be.PutUint32(l4[8:], 0x01020304)
		l4[12], l4[13] = byte(5+len(s.tcp)/4)<<4, flagACK|s.flags
		be.PutUint16(l4[14:], 0x1234)
		copy(l4[20:], s.tcp)
	}
	if s.edit != nil {
		s.edit(pkt)
	}
	if !s.v6 {
		be.PutUint16(pkt[10:], ^naive(pkt[:s.l4()]))
	}
	return pkt
}

// partial is the packet as a kernel hands it over: with the pseudo header's sum.
func (s sample) partial() []byte {
	pkt := s.bytes()
	binary.BigEndian.PutUint16(pkt[s.sum():], naive(naivePseudo(pkt, s.l4(), s.proto())))
	return pkt
}

// whole is the packet as it is on a wire.
func (s sample) whole() []byte {
	pkt := s.bytes()
	sum := ^naive(append(naivePseudo(pkt, s.l4(), s.proto()), pkt[s.l4():]...))
	if sum == 0 && s.udp {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(pkt[s.sum():], sum)
	return pkt
}

// kernel is what the device says of the packet: to be cut to size, or not if that is 0.
func (s sample) kernel(size int) Header {
	h := Header{Flags: 1, Length: uint16(s.header()), ChecksumStart: uint16(s.l4()), ChecksumOffset: uint16(s.sum() - s.l4())}
	if size == 0 {
		h.Length = 0 // no two kernels agree about it, and nobody needs it
		return h
	}
	h.SegmentSize = uint16(size)
	switch {
	case s.udp:
		h.Type = 5
	case s.v6:
		h.Type = 4
	default:
		h.Type = 1
	}
	if !s.udp && s.flags&flagCWR != 0 {
		h.Type |= 0x80
	}
	return h
}

// segments are what a card would make of the packet.
func (s sample) segments(size int) []sample {
	var all []sample
	for at := 0; at < len(s.payload); at += size {
		one := s
		end := min(at+size, len(s.payload))
		one.payload, one.id, one.seq = s.payload[at:end], s.id+uint16(len(all)), s.seq+uint32(at)
		if at > 0 {
			one.flags &^= flagCWR
		}
		if end < len(s.payload) {
			one.flags &^= flagFIN | flagPSH
		}
		all = append(all, one)
	}
	return all
}

// naive is the one's complement sum of RFC 1071 as its text has it.
func naive(b []byte) uint16 {
	var sum uint32
	for i, octet := range b {
		if i%2 == 0 {
			sum += uint32(octet) << 8
		} else {
			sum += uint32(octet)
		}
		if sum > 0xffff {
			sum -= 0xffff
		}
	}
	return uint16(sum)
}

// naivePseudo is the pseudo header of a packet.
func naivePseudo(pkt []byte, l4 int, proto byte) []byte {
	length := len(pkt) - l4
	if pkt[0]>>4 == 6 {
		head := append([]byte(nil), pkt[8:40]...)
		return append(head, 0, 0, byte(length>>8), byte(length), 0, 0, 0, proto)
	}
	head := append([]byte(nil), pkt[12:20]...)
	return append(head, 0, proto, byte(length>>8), byte(length))
}

// verify is what a receiver without a card checks.
func verify(pkt []byte) error {
	l4, proto := 40, pkt[6]
	if pkt[0]>>4 == 4 {
		l4, proto = 4*int(pkt[0]&15), pkt[9]
		if total := int(pkt[2])<<8 | int(pkt[3]); total != len(pkt) {
			return fmt.Errorf("it says that it has %d bytes, and has %d", total, len(pkt))
		}
		if naive(pkt[:l4]) != 0xffff {
			return fmt.Errorf("wrong checksum of the IPv4 header")
		}
	} else {
		if total := 40 + int(pkt[4])<<8 + int(pkt[5]); total != len(pkt) {
			return fmt.Errorf("it says that it has %d bytes, and has %d", total, len(pkt))
		}
		for proto == 0 || proto == 60 {
			proto, l4 = pkt[l4], l4+8+8*int(pkt[l4+1])
		}
	}
	if proto == 17 && pkt[l4+6] == 0 && pkt[l4+7] == 0 {
		return fmt.Errorf("no checksum")
	}
	if naive(append(naivePseudo(pkt, l4, proto), pkt[l4:]...)) != 0xffff {
		return fmt.Errorf("wrong checksum of the transport")
	}
	return nil
}
