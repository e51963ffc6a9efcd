package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/session"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Sender sends datagrams to one peer. Send waits for room and returns how many left;
// Offer does not wait. One goroutine uses it at a time. overlay/socket documents them.
type Sender interface {
	Send(packets [][]byte) (sent int, err error)
	Offer(packet []byte) error
}

// Direct is the network below, as far as it is UDP.
type Direct interface {
	Opener // of SessionProtocol
	// Sender returns a new way to send datagrams where the peer's connection goes.
	// It fails where that is not over UDP.
	Sender(id identity.ID) (Sender, error)
}

// DirectConfig is what the direct way works with.
type DirectConfig struct {
	Direct
	PSK    session.PSK
	Suites session.Suites
}

// direct is the direct way to one peer, for as long as the peer has a connection.
type direct struct {
	d      *Datapath
	peer   *peer
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{} // something has changed that run should look at

	session session.Session

	limit atomic.Int32 // the prober's mtu

	mu      sync.Mutex // guards what follows
	prober  prober
	wanted  bool   // there were packets since the last handshake, or there was none
	trouble string // why the way is not up, where that is not for want of an answer

	saying  sync.Mutex // guards what follows
	control Sender
	scratch []byte
}

// arrival is where packets with one index belong.
type arrival struct {
	keys *session.Keys
	to   *direct
}

// HandleDatagrams delivers datagrams that are not QUIC's, from whatever address.
// What no member has sealed for this node is counted and nothing else. It runs on
// one goroutine for each socket, and overwrites packets.
func (d *Datapath) HandleDatagrams(_ netip.AddrPort, packets [][]byte) {
	var from *direct
	good := packets[:0]
	for _, packet := range packets {
		w, payload := d.open(packet)
		if w == nil {
			continue
		}
		if w != from {
			d.deliverDirect(from, good)
			from, good = w, good[:0]
		}
		if len(payload) > 0 {
			good = append(good, payload)
		}
	}
	d.deliverDirect(from, good)
}

// open returns whose packet it is and the IP packet in it; none for what the direct
// way itself has to say.
func (d *Datapath) open(packet []byte) (*direct, []byte) {
	index, ok := session.Index(packet)
	a, known := (*d.arrivals.Load())[index]
	if !ok || !known {
		d.drops[DropJunk].Add(1)
		return nil, nil
	}
	payload, err := a.keys.Open(packet[session.HeaderSize:session.HeaderSize], packet)
	if errors.Is(err, session.ErrReplay) {
		a.to.peer.count.drop(DropReplay, 1)
		return nil, nil
	}
	if err != nil || len(payload) == 0 {
		d.drops[DropJunk].Add(1)
		return nil, nil
	}
	if done := a.to.session.Opened(a.keys); done != nil {
		d.dropKeys(done)
	}
	if payload[0] != controlProbe && payload[0] != controlAnswer {
		return a.to, payload
	}
	a.to.hear(payload)
	return nil, nil
}

func (d *Datapath) deliverDirect(from *direct, packets [][]byte) {
	if from != nil && len(packets) > 0 {
		_ = d.deliver(from.peer, packets) // counted there; a device that is closed ends Run
	}
}

// sealed is room for the packets of one batch on their way out.
type sealed struct {
	room    []byte
	packets [][]byte
}

// directBatch is how many packets leave at once.
const directBatch = 64

// make makes the room when it is first needed: not every peer is talked to.
func (s *sealed) make(mtu int) {
	if s.room == nil {
		s.room = make([]byte, 0, directBatch*(mtu+session.Overhead))
		s.packets = make([][]byte, 0, directBatch)
	}
}

// flush sends the batch and returns what was not sent: frames that the stream form
// can take.
func (w *direct) flush(b *batch, out Sender, buf *sealed) (rest []byte) {
	keys := w.session.Sealing(w.d.now())
	if keys == nil {
		return b.frames
	}
	frames, at := b.frames, b.frames
	buf.make(w.d.dev.MTU())
	buf.room, buf.packets = buf.room[:0], buf.packets[:0]
	for len(at) > 0 {
		size := int(binary.BigEndian.Uint16(at))
		begin := len(buf.room)
		if cap(buf.room)-begin < size+session.Overhead || len(buf.packets) == directBatch {
			if rest := w.send(out, buf, frames); rest != nil {
				return rest
			}
			frames, begin = at, 0
		}
		room, err := keys.Seal(buf.room, at[wire.FrameHeader:wire.FrameHeader+size])
		if err != nil {
			return frames
		}
		buf.room = room
		buf.packets = append(buf.packets, room[begin:])
		at = at[wire.FrameHeader+size:]
	}
	return w.send(out, buf, frames)
}

// send sends what is sealed; frames is what it was made of.
func (w *direct) send(out Sender, buf *sealed, frames []byte) (rest []byte) {
	n, err := out.Send(buf.packets)
	size := 0
	if err != nil {
		size = len(buf.packets[n]) - session.Overhead
	}
	buf.room, buf.packets = buf.room[:0], buf.packets[:0]
	if err == nil {
		return nil
	}
	w.refused(size, err)
	for range n {
		frames = frames[wire.FrameHeader+int(binary.BigEndian.Uint16(frames)):]
	}
	return frames
}
