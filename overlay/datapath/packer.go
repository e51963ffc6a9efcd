package datapath

import (
	"github.com/kairos-io/kairos/overlay/offload"
	"github.com/kairos-io/kairos/overlay/path"
	"github.com/kairos-io/kairos/overlay/session"
)

// What the flags in the header of a datagram say of its payload.
const (
	// flagPartial: the packets in it have the shape offload.Partial; without it they are whole.
	flagPartial = 0x01
	// flagHead and flagTail: it is a part of one packet; see split.
	flagHead = 0x02
	flagTail = 0x04
)

// Limits of what a packer sends at once: what one system call takes.
const (
	packBytes     = 65000
	packDatagrams = 64
)

// packer seals packets into datagrams for one endpoint at a time. A datagram holds whole
// IP packets, back to back: one that nearly fills it, or small ones that came
// together. Each can be delivered alone, whatever becomes of the others.
type packer struct {
	to    *endpoint // nil: it has failed, or there is none now
	keys  *session.Keys
	full  int       // payload of a datagram, at most
	count *counters // of the peer, also when the path has failed
	cut   offload.Cutter

	room      []byte
	datagrams [][]byte
	packets   []int // in each datagram

	small  []byte // packets that wait for a datagram
	flags  byte   // of them
	queued int    // how many

	number uint32 // of the packet that was split last
	half   []byte
}

func newPacker() packer {
	return packer{
		room:      make([]byte, 0, packBytes),
		datagrams: make([][]byte, 0, packDatagrams),
		packets:   make([]int, 0, packDatagrams),
		small:     make([]byte, 0, packBytes),
	}
}

// begin is about packets that go to an endpoint, out of its Sender that is this
// goroutine's, from now on.
func (k *packer) begin(to *endpoint, keys *session.Keys) {
	k.to, k.keys, k.full, k.count = to, keys, int(to.mtu.Load()), &to.peer.account.count
	if k.full == 0 {
		k.full = path.Floor // it was chosen a moment ago
	}
}

// limit implements outlet: what IPv6 asks of every network gets through every path.
func (k *packer) limit() int { return max(k.full, MinMTU) }

// broken implements outlet.
func (k *packer) broken() bool { return k.to == nil }

// take implements outlet. What is lost because the path fails is counted.
func (k *packer) take(p offload.Packet) bool {
	limit := k.full
	if !p.Shape.Large() {
		limit = k.limit()
	}
	if !k.cut.Start(p, limit) {
		return false
	}
	var flags byte
	if p.Shape != offload.Whole {
		flags = flagPartial
	}
	lost := 0
	for segment := k.cut.Next(); segment != nil; segment = k.cut.Next() {
		if k.to == nil || !k.add(segment, flags) {
			lost++
		}
	}
	if lost > 1 { // add has counted the first
		k.count.drop(DropLinkLost, lost-1)
	}
	return true
}

// add sends a packet, now or with those that follow. It reports false where the path
// has failed.
func (k *packer) add(pkt []byte, flags byte) bool {
	large := len(pkt) > k.full/2
	if (large || len(k.small)+len(pkt) > k.full || flags != k.flags) && !k.close() {
		k.count.drop(DropLinkLost, 1)
		return false
	}
	switch {
	case len(pkt) > k.full:
		return k.split(pkt, flags)
	case large:
		return k.seal(pkt, flags, 1)
	}
	k.small = append(k.small, pkt...)
	k.flags = flags
	k.queued++
	return true
}

// close seals the small packets.
func (k *packer) close() bool {
	if k.queued == 0 {
		return true
	}
	queued := k.queued
	k.queued = 0 // seal counts them
	ok := k.seal(k.small, k.flags, queued)
	k.small = k.small[:0]
	return ok
}

// flush implements outlet: it sends all there is.
func (k *packer) flush() {
	if k.to != nil && k.close() && k.send() {
		k.to = nil
	}
}

func (k *packer) seal(payload []byte, flags byte, packets int) bool {
	begin := len(k.room)
	if begin+len(payload)+session.Overhead > cap(k.room) || len(k.datagrams) == cap(k.datagrams) {
		if !k.send() {
			k.count.drop(DropLinkLost, packets)
			return false
		}
		begin = 0
	}
	room, err := k.keys.Seal(k.room, payload, flags)
	if err != nil {
		k.lose(packets)
		return false
	}
	if len(payload) > path.Floor && !k.to.large.Load() {
		k.to.large.Store(true)
	}
	k.room = room
	k.datagrams = append(k.datagrams, room[begin:])
	k.packets = append(k.packets, packets)
	return true
}

// send sends the datagrams.
func (k *packer) send() bool {
	if len(k.datagrams) == 0 {
		return true
	}
	sent, err := k.to.out.Send(k.datagrams)
	packets, bytes := 0, 0
	for i, d := range k.datagrams[:sent] {
		packets += k.packets[i]
		bytes += len(d) - session.Overhead
	}
	k.count.sent(packets, bytes)
	if err != nil {
		k.to.peer.refused(k.to, len(k.datagrams[sent])-session.Overhead, err)
		k.packets = append(k.packets[:0], k.packets[sent:]...)
		k.lose(0)
		return false
	}
	k.room, k.datagrams, k.packets = k.room[:0], k.datagrams[:0], k.packets[:0]
	return true
}

// lose gives the path up, with what was not sent.
func (k *packer) lose(packets int) {
	for _, n := range k.packets {
		packets += n
	}
	k.count.drop(DropLinkLost, packets+k.queued)
	k.room, k.datagrams, k.packets = k.room[:0], k.datagrams[:0], k.packets[:0]
	k.small, k.queued, k.to = k.small[:0], 0, nil
}
