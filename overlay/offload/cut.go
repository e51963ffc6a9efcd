package offload

import "encoding/binary"

// Cutter cuts packets into segments. The zero value is ready; it is for one packet
// and one goroutine at a time.
type Cutter struct {
	pkt    []byte
	layout layout
	size   int // payload of a segment
	at     int // offset of the next payload
	first  [MaxHeader]byte
	id     uint16
	seq    uint32
	flags  byte
}

// Start begins with p, whose segments are to have at most limit bytes with their
// headers: those of TCP are made smaller if need be. It reports false where p cannot
// be cut so small.
func (c *Cutter) Start(p Packet, limit int) bool {
	c.pkt, c.at, c.size = p.Data, 0, 0
	if !p.Shape.Large() {
		return len(p.Data) <= limit
	}
	l, ok := find(p.Data)
	if !ok {
		return false
	}
	c.layout, c.at, c.size = l, l.payload, int(p.Shape)
	if l.tcp {
		c.size = min(c.size, limit-l.payload)
	}
	if c.size < 1 || l.payload+c.size > limit {
		return false
	}
	copy(c.first[:], p.Data[:l.payload])
	if !l.v6 {
		c.id = binary.BigEndian.Uint16(p.Data[4:])
	}
	if l.tcp {
		c.seq, c.flags = binary.BigEndian.Uint32(p.Data[l.l4+tcpSeq:]), p.Data[l.l4+tcpFlags]
	}
	return true
}

// Next returns the next segment, and nil after the last one. It lies in the memory
// of the packet and is good until Next is called again. Its shape is Shape.Segment.
func (c *Cutter) Next() []byte {
	if c.size == 0 { // one packet
		pkt := c.pkt
		c.pkt = nil
		return pkt
	}
	if c.at == len(c.pkt) {
		c.pkt, c.at, c.size = nil, 0, 0
		return nil
	}
	l := c.layout
	end := min(c.at+c.size, len(c.pkt))
	pkt := c.pkt[c.at-l.payload : end]
	copy(pkt, c.first[:l.payload])
	if !l.v6 {
		binary.BigEndian.PutUint16(pkt[4:], c.id)
		c.id++
	}
	setLength(pkt, l, len(pkt))
	if l.tcp {
		binary.BigEndian.PutUint32(pkt[l.l4+tcpSeq:], c.seq)
		c.seq += uint32(end - c.at)
		flags := c.flags
		if end < len(c.pkt) {
			flags &^= flagFIN | flagPSH
		}
		pkt[l.l4+tcpFlags] = flags
		c.flags &^= flagCWR
	}
	c.at = end
	return pkt
}
