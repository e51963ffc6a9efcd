package offload

import (
	"bytes"
	"encoding/binary"
)

// Limits of what a Merger makes.
const (
	maxPacket   = 1<<16 - 1
	maxSegments = 64 // of UDP, Linux takes no more (UDP_MAX_SEGMENTS)
)

// Merger puts packets together. Packets go in by Add and come out by Take, in order.
// The zero value is ready; it is for one goroutine at a time.
type Merger struct {
	parts  [][]byte
	shape  Shape
	layout layout
	open   bool // more may be added to what is there
	size   int  // payload of each segment
	total  int  // bytes of all parts
	seq    uint32
	first  byte // TCP flags of the first segment
	flags  byte // and of the last
}

// Headers is how many bytes of headers a packet has that Join would take; 0 if there is
// none that it would.
func (m *Merger) Headers() int {
	if len(m.parts) == 0 || !m.open {
		return 0
	}
	return m.layout.payload
}

// Join takes a valid packet if it is the next segment of what was added before, and
// reports whether it is. Of its memory only what is behind the headers is then the
// Merger's until Take.
func (m *Merger) Join(p Packet) bool {
	return len(m.parts) > 0 && m.open && p.Shape == Partial && m.join(p.Data)
}

// Add takes a valid packet. It reports false if that has to wait until what was added
// before has been taken. The memory of the packet is the Merger's until then.
func (m *Merger) Add(p Packet) bool {
	if len(m.parts) > 0 {
		return m.Join(p)
	}
	m.parts = append(m.parts, p.Data)
	m.shape, m.total, m.open, m.flags = p.Shape, len(p.Data), false, 0
	if p.Shape == Whole {
		return true
	}
	l, _ := find(p.Data)
	m.layout, m.size = l, len(p.Data)-l.payload
	if p.Shape != Partial || m.size < 2 {
		return true
	}
	if l.tcp {
		m.seq = binary.BigEndian.Uint32(p.Data[l.l4+tcpSeq:]) + uint32(m.size)
		m.first = p.Data[l.l4+tcpFlags]
		m.open = m.first&^flagECE == flagACK
		return true
	}
	m.open = true
	return true
}

// join adds a packet to those that are there if it is their next segment.
func (m *Merger) join(pkt []byte) bool {
	l, ok := find(pkt)
	size := len(pkt) - l.payload
	if !ok || l != m.layout || size < 1 || size > m.size || m.total+size > maxPacket || len(m.parts) == maxSegments {
		return false
	}
	first := m.parts[0]
	if !sameIP(first, pkt, l) || !bytes.Equal(first[l.l4:l.l4+4], pkt[l.l4:l.l4+4]) {
		return false
	}
	if l.tcp {
		flags := pkt[l.l4+tcpFlags]
		rest := l.l4 + tcpSum + 2 // the urgent pointer and options
		if flags&^(flagPSH|flagFIN) != m.first || binary.BigEndian.Uint32(pkt[l.l4+tcpSeq:]) != m.seq ||
			!bytes.Equal(first[l.l4+8:l.l4+13], pkt[l.l4+8:l.l4+13]) || // acknowledgement, length of the header
			!bytes.Equal(first[l.l4+14:l.l4+16], pkt[l.l4+14:l.l4+16]) || // window
			!bytes.Equal(first[rest:l.payload], pkt[rest:l.payload]) {
			return false
		}
		m.flags = flags
		m.seq += uint32(size)
	}
	m.open = size == m.size && m.flags&(flagPSH|flagFIN) == 0
	m.parts = append(m.parts, pkt[l.payload:])
	m.total += size
	return true
}

// sameIP reports whether two packets differ in nothing of IP that segments of one
// packet would have alike.
func sameIP(a, b []byte, l layout) bool {
	if l.v6 {
		return bytes.Equal(a[:4], b[:4]) && bytes.Equal(a[6:l.l4], b[6:l.l4])
	}
	return bytes.Equal(a[:2], b[:2]) && bytes.Equal(a[6:10], b[6:10]) && bytes.Equal(a[12:l.l4], b[12:l.l4])
}

// Take returns what was added as one packet for the kernel, in parts that are good
// until Add is called again: none if there is nothing.
func (m *Merger) Take() (Header, [][]byte) {
	parts := m.parts
	m.parts = m.parts[:0]
	if len(parts) == 0 || m.shape == Whole {
		return Header{}, parts
	}
	first, l := parts[0], m.layout
	h := Header{Flags: needsChecksum, Length: uint16(l.payload), ChecksumStart: uint16(l.l4), ChecksumOffset: uint16(l.sum() - l.l4)}
	if m.shape.Large() {
		h.Type, h.SegmentSize = segmentation(l), uint16(m.shape)
		if l.tcp && first[l.l4+tcpFlags]&flagCWR != 0 {
			h.Type |= typeECN
		}
	}
	if len(parts) > 1 {
		h.Type, h.SegmentSize = segmentation(l), uint16(m.size)
		if l.tcp {
			first[l.l4+tcpFlags] |= m.flags
		}
	}
	setLength(first, l, m.total)
	binary.BigEndian.PutUint16(first[l.sum():], pseudo(first, l, m.total)) // the kernel goes on from it
	return h, parts
}
