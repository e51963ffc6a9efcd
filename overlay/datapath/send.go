package datapath

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/offload"
)

// sender takes packets from the device to the peers. It has a goroutine to itself, on
// which datagrams pass into the network below.
type sender struct {
	d     *Datapath
	fair  *fair
	now   time.Duration
	since int // bytes forwarded since the device was looked at
	fresh int // packets since it was waited for

	memo  memo
	run   run
	pack  packer
	icmp  limiter
	reply []byte
	out   [1][]byte
}

// run is packets in a row for one peer: they are sent together.
type run struct {
	id  identity.ID
	to  *account // nil: unknown
	out outlet   // nil: not connected
	on  bool
}

// busyFrom is how many packets after one wait say that more will come.
const busyFrom = 4

func newSender(d *Datapath) *sender {
	s := &sender{d: d, reply: make([]byte, 0, maxICMP6), pack: newPacker()}
	s.fair = newFair(offload.BufferSize, rand.Uint64(), func(p offload.Packet) { d.drops[DropQueueFull].Add(uint64(p.Segments())) })
	return s
}

// loop carries packets until the device fails or is closed: its error is never nil.
func (s *sender) loop() error {
	for {
		if err := s.fill(); err != nil {
			return err
		}
		slot := s.fair.pop(s.now)
		if slot == nil {
			s.flush()
			if err := s.d.dev.Wait(s.fresh >= busyFrom); err != nil {
				return err
			}
			s.fresh = 0
			continue
		}
		s.since += len(slot.pkt.Data)
		s.forward(slot.pkt)
		s.fair.release(slot)
	}
}

// fill takes what the device has, unless it was looked at just before: packets of
// flows that send little must not wait behind the others in there.
func (s *sender) fill() error {
	if s.fair.bytes > 0 && s.since < fairTurn {
		return nil
	}
	s.since, s.now = 0, s.d.now()
	for range fairSlots {
		slot := s.fair.room()
		if slot == nil {
			return nil
		}
		p, err := s.d.dev.Read(slot.room)
		if err == nil && len(p.Data) > 0 {
			slot.pkt = p
			s.fair.push(slot, s.now)
			s.fresh++
			continue
		}
		s.fair.release(slot)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, offload.ErrPacket):
			s.d.drops[DropMalformed].Add(1)
		default:
			return err
		}
	}
	return nil
}

// forward takes one packet from the device to its peer, or counts why not.
func (s *sender) forward(p offload.Packet) {
	d := s.d
	src, dst, ok := parse(p.Data)
	if !ok {
		d.drops[DropMalformed].Add(1)
		return
	}
	if !carried(dst) {
		d.drops[DropMulticast].Add(1)
		return
	}
	s.memo.ask(d.routes.Load(), d.self, src, dst)
	id := s.memo.to
	if !s.memo.known || id == d.self {
		d.drops[DropNoRoute].Add(uint64(p.Segments()))
		s.unreachable(p)
		return
	}
	if !s.memo.genuine {
		d.drops[DropLocalSource].Add(uint64(p.Segments()))
		s.unreachable(p)
		return
	}
	if !s.run.on || s.run.id != id || s.run.out != nil && s.run.out.broken() {
		s.flush()
		s.start(id)
	}
	switch {
	case s.run.to == nil:
		d.drops[DropNotConnected].Add(uint64(p.Segments()))
		s.unreachable(p)
	case s.run.out == nil:
		s.run.to.count.drop(DropNotConnected, p.Segments())
		s.unreachable(p)
	case !s.run.out.take(p):
		s.tooBig(p)
	}
}

// start begins a run of packets to id.
func (s *sender) start(id identity.ID) {
	s.run = run{id: id, to: (*s.d.accounts.Load())[id], on: true}
	if s.run.to == nil {
		return
	}
	if p := s.run.to.peer.Load(); p != nil {
		s.run.out = p.outlet(&s.pack, s.now)
	}
}

// flush ends the run: nothing waits for more packets.
func (s *sender) flush() {
	if s.run.on && s.run.out != nil {
		s.run.out.flush()
	}
	s.run.on = false
}

// tooBig tells the sender of a packet what the path takes.
func (s *sender) tooBig(p offload.Packet) {
	s.run.to.count.drop(DropTooBig, p.Segments())
	s.answer(appendTooBig(s.reply[:0], p.Data, s.run.out.limit()))
}

// unreachable tells the sender of a packet that its wait is over.
func (s *sender) unreachable(p offload.Packet) { s.answer(appendUnreachable(s.reply[:0], p.Data)) }

// answer hands the device a packet of our own, not too often. A kernel that
// does not take it loses advice, no data.
func (s *sender) answer(pkt []byte) {
	if len(pkt) == 0 || !s.icmp.allow(time.Now()) {
		return
	}
	s.out[0] = pkt
	_ = s.d.dev.Write(offload.Header{}, s.out[:])
}
