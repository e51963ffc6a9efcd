package datapath

import (
	"github.com/kairos-io/kairos/overlay/session"
)

// flagPartial says in the header of a datagram that the packets in it have the shape
// offload.Partial; without it they are whole.
const flagPartial = 0x01

// Limits of what a packer sends at once: what one system call takes.
const (
	packBytes     = 65000
	packDatagrams = 64
)

// packer seals packets into datagrams for one peer at a time. A datagram holds whole
// IP packets, back to back: one that nearly fills it, or small ones that came
// together. Each can be delivered alone, whatever becomes of the others.
type packer struct {
	way   *direct // nil: there is none now
	keys  *session.Keys
	out   Sender
	full  int       // payload of a datagram, at most
	count *counters // of the peer, also when the way has ended

	room      []byte
	datagrams [][]byte
	packets   []int // in each datagram

	small  []byte // packets that wait for a datagram
	flags  byte   // of them
	queued int    // how many
}

func newPacker() packer {
	return packer{
		room:      make([]byte, 0, packBytes),
		datagrams: make([][]byte, 0, packDatagrams),
		packets:   make([]int, 0, packDatagrams),
		small:     make([]byte, 0, packBytes),
	}
}

// on reports whether there is a way.
func (k *packer) on() bool { return k.way != nil }

// begin is about packets that go by way from now on, out of a Sender that is this
// goroutine's; mtu is the largest packet.
func (k *packer) begin(way *direct, keys *session.Keys, out Sender, mtu int) {
	k.way, k.keys, k.out, k.full, k.count = way, keys, out, mtu, &way.peer.count
}

// add sends a packet, now or with those that follow. It reports false where the way
// has ended.
func (k *packer) add(pkt []byte, flags byte) bool {
	large := len(pkt) > k.full/2
	if (large || len(k.small)+len(pkt) > k.full || flags != k.flags) && !k.close() {
		k.count.drop(DropLinkLost, 1)
		return false
	}
	if large {
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

// end sends all there is.
func (k *packer) end() {
	if k.close() && k.send() {
		k.way = nil
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
		k.way.refused(0, err)
		k.lose(packets)
		return false
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
	sent, err := k.out.Send(k.datagrams)
	packets, bytes := 0, 0
	for i, d := range k.datagrams[:sent] {
		packets += k.packets[i]
		bytes += len(d) - session.Overhead
	}
	k.count.sent(packets, bytes)
	if err != nil {
		k.way.refused(len(k.datagrams[sent])-session.Overhead, err)
		k.packets = append(k.packets[:0], k.packets[sent:]...)
		k.lose(0)
		return false
	}
	k.room, k.datagrams, k.packets = k.room[:0], k.datagrams[:0], k.packets[:0]
	return true
}

// lose ends the way, with what was not sent.
func (k *packer) lose(packets int) {
	for _, n := range k.packets {
		packets += n
	}
	k.count.drop(DropLinkLost, packets+k.queued)
	k.room, k.datagrams, k.packets = k.room[:0], k.datagrams[:0], k.packets[:0]
	k.small, k.queued, k.way = k.small[:0], 0, nil
}
