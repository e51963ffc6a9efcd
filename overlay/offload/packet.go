package offload

import (
	"encoding/binary"
	"errors"
)

// Shape says what is left to do with a packet.
type Shape uint16

// The shapes of single packets; any other is the payload of a segment in bytes.
const (
	Whole   Shape = 0
	Partial Shape = 0xffff // no packet has a segment of so many bytes, and more behind it
)

// Large reports whether a packet stands for segments.
func (s Shape) Large() bool { return s != Whole && s != Partial }

// Segment is the shape of the segments that a packet is cut into.
func (s Shape) Segment() Shape {
	if s == Whole {
		return Whole
	}
	return Partial
}

// Packet is an IP packet.
type Packet struct {
	Data  []byte
	Shape Shape
}

// ErrPacket says that a packet is not what its shape, or the kernel, says.
var ErrPacket = errors.New("packet and its offload do not belong together")

// Header sizes in bytes.
const (
	ipv4Header = 20 // RFC 791, without options
	ipv6Header = 40 // RFC 8200
	tcpHeader  = 20 // RFC 9293, without options
	udpHeader  = 8  // RFC 768
	maxTCP     = 60
)

// MaxHeader is the largest sum of headers that a packet to be cut may have: more
// than any that a kernel sends.
const MaxHeader = 256

// Protocol numbers.
const (
	protoTCP = 6
	protoUDP = 17

	protoHopByHop    = 0
	protoDestination = 60
)

// Offsets of the checksum in the transport header, and of what else is changed.
const (
	tcpSum   = 16
	udpSum   = 6
	tcpSeq   = 4
	tcpFlags = 13
)

// TCP flags.
const (
	flagFIN = 0x01
	flagPSH = 0x08
	flagACK = 0x10
	flagECE = 0x40
	flagCWR = 0x80
)

// layout is where things are in a TCP or UDP packet.
type layout struct {
	v6      bool
	tcp     bool
	l4      int // offset of the transport header
	payload int // offset of what follows it
}

// sum is the offset of the transport checksum.
func (l layout) sum() int {
	if l.tcp {
		return l.l4 + tcpSum
	}
	return l.l4 + udpSum
}

// find finds the transport header of a TCP or UDP packet whose own lengths, of IP and
// of UDP, are the number of its bytes. It reports false for any other packet, for
// fragments, and where an extension header makes another address count than the
// header's (RFC 8200, section 8.1).
func find(pkt []byte) (l layout, ok bool) {
	if len(pkt) < ipv4Header {
		return l, false
	}
	var proto byte
	switch pkt[0] >> 4 {
	case 4:
		l.l4, proto = int(pkt[0]&0x0f)*4, pkt[9]
		fragment := binary.BigEndian.Uint16(pkt[6:])&0x3fff != 0
		if l.l4 < ipv4Header || int(binary.BigEndian.Uint16(pkt[2:])) != len(pkt) || fragment {
			return l, false
		}
	case 6:
		if len(pkt) < ipv6Header || ipv6Header+int(binary.BigEndian.Uint16(pkt[4:])) != len(pkt) {
			return l, false
		}
		l.v6, l.l4, proto = true, ipv6Header, pkt[6]
		for proto == protoHopByHop || proto == protoDestination {
			if len(pkt) < l.l4+8 {
				return l, false
			}
			proto, l.l4 = pkt[l.l4], l.l4+8*(int(pkt[l.l4+1])+1)
		}
	default:
		return l, false
	}
	switch rest := len(pkt) - l.l4; proto {
	case protoTCP:
		if rest < tcpHeader {
			return l, false
		}
		size := int(pkt[l.l4+12]>>4) * 4
		l.tcp, l.payload = true, l.l4+size
		return l, size >= tcpHeader && size <= rest && l.payload <= MaxHeader
	case protoUDP:
		if rest < udpHeader {
			return l, false
		}
		l.payload = l.l4 + udpHeader
		return l, l.payload <= MaxHeader && int(binary.BigEndian.Uint16(pkt[l.l4+4:])) == rest
	}
	return l, false
}

// Take makes a Packet of what the kernel handed over. It may write to data, which
// the Packet keeps. ErrPacket is what no kernel should send.
func Take(h Header, data []byte) (Packet, error) {
	if h.Flags&needsChecksum == 0 {
		if h.Type != typeNone {
			return Packet{}, ErrPacket
		}
		return Packet{data, Whole}, nil
	}
	l, ok := find(data)
	ok = ok && int(h.ChecksumStart) == l.l4 && int(h.ChecksumStart)+int(h.ChecksumOffset) == l.sum()
	if h.Type == typeNone {
		if ok {
			return Packet{data, Partial}, nil
		}
		return Packet{data, Whole}, complete(data, int(h.ChecksumStart), int(h.ChecksumOffset))
	}
	if !ok || !Shape(h.SegmentSize).Large() || h.Type&typesMask != segmentation(l) {
		return Packet{}, ErrPacket
	}
	if len(data)-l.payload <= int(h.SegmentSize) {
		return Packet{data, Partial}, nil
	}
	return Packet{data, Shape(h.SegmentSize)}, nil
}

func segmentation(l layout) uint8 {
	switch {
	case !l.tcp:
		return typeUDP
	case l.v6:
		return typeTCP6
	}
	return typeTCP4
}

// Valid reports whether a packet that somebody sent us can have its shape.
func (p Packet) Valid() bool {
	if p.Shape == Whole {
		return true
	}
	l, ok := find(p.Data)
	return ok && (p.Shape == Partial || len(p.Data)-l.payload > int(p.Shape))
}

// Segments is how many packets on a wire p stands for.
func (p Packet) Segments() int {
	if !p.Shape.Large() {
		return 1
	}
	l, ok := find(p.Data)
	if !ok {
		return 1
	}
	return (len(p.Data) - l.payload + int(p.Shape) - 1) / int(p.Shape)
}
