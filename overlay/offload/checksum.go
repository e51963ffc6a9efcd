package offload

import (
	"encoding/binary"
	"math/bits"
)

// Checksum is the Internet checksum of b (RFC 1071), started with a sum.
func Checksum(sum uint32, b []byte) uint16 { return ^fold(add(uint64(sum), b)) }

// add adds b, taken as numbers of 16 bits, to a one's complement sum.
func add(sum uint64, b []byte) uint64 {
	var carry uint64
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	var last [8]byte
	copy(last[:], b)
	sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(last[:]), carry)
	sum, carry = bits.Add64(sum, 0, carry)
	return sum + carry
}

func fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum)
}

// pseudo is the sum of the pseudo header for the transport of a packet of length
// bytes, of which pkt holds the headers (RFC 9293, section 3.1; RFC 8200, section 8.1).
func pseudo(pkt []byte, l layout, length int) uint16 {
	proto := uint64(protoUDP)
	if l.tcp {
		proto = protoTCP
	}
	sum := proto + uint64(length-l.l4)
	if l.v6 {
		return fold(add(sum, pkt[8:40]))
	}
	return fold(add(sum, pkt[12:20]))
}

// complete fills in a checksum of which the packet has only the first part.
func complete(pkt []byte, start, offset int) error {
	if start+offset+2 > len(pkt) {
		return ErrPacket
	}
	sum := ^fold(add(0, pkt[start:]))
	if sum == 0 {
		sum = 0xffff // a datagram's 0 would mean that there is none; elsewhere both are zero
	}
	binary.BigEndian.PutUint16(pkt[start+offset:], sum)
	return nil
}

// Complete turns a Partial packet into a Whole one, in place.
func (p Packet) Complete() (Packet, error) {
	if p.Shape == Whole {
		return p, nil
	}
	l, ok := find(p.Data)
	if !ok || p.Shape != Partial {
		return p, ErrPacket
	}
	binary.BigEndian.PutUint16(p.Data[l.sum():], pseudo(p.Data, l, len(p.Data)))
	return Packet{p.Data, Whole}, complete(p.Data, l.l4, l.sum()-l.l4)
}

// setLength writes the length of the packet to its IP header, and to UDP's, and the
// checksum of IPv4.
func setLength(pkt []byte, l layout, length int) {
	if l.v6 {
		binary.BigEndian.PutUint16(pkt[4:], uint16(length-ipv6Header))
	} else {
		binary.BigEndian.PutUint16(pkt[2:], uint16(length))
		binary.BigEndian.PutUint16(pkt[10:], 0)
		binary.BigEndian.PutUint16(pkt[10:], ^fold(add(0, pkt[:int(pkt[0]&0x0f)*4])))
	}
	if !l.tcp {
		binary.BigEndian.PutUint16(pkt[l.l4+4:], uint16(length-l.l4))
	}
}
