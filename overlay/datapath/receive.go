package datapath

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/poll"
	"github.com/kairos-io/kairos/overlay/offload"
	"github.com/kairos-io/kairos/overlay/path"
	"github.com/kairos-io/kairos/overlay/session"
	"github.com/kairos-io/kairos/overlay/wire"
)

// receiver is what one goroutine needs on the way in.
type receiver struct {
	pkts   []arrived
	merger offload.Merger
	memo   memo

	datagrams int // since the last yield
}

// arrived is one IP packet.
type arrived struct {
	offload.Packet
	src, dst netip.Addr
}

// take adds what should be one IP packet of that shape, and reports whether it is.
func (r *receiver) take(data []byte, shape offload.Shape) bool {
	a := arrived{Packet: offload.Packet{Data: data, Shape: shape}}
	var ok bool
	if a.src, a.dst, ok = parse(data); !ok || !a.Valid() {
		return false
	}
	r.pkts = append(r.pkts, a)
	return true
}

// HandleStream delivers what the authenticated peer id sends on a stream of
// Protocol, until the stream ends; it then closes it. A newer stream of the
// same peer ends the older one.
func (d *Datapath) HandleStream(id identity.ID, s Stream) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		_ = s.Reset()
		return
	}
	d.running.Add(1)
	defer d.running.Done()
	a := d.ensure(id)
	old := a.inbound
	a.inbound = s
	d.mu.Unlock()
	if old != nil {
		_ = old.Reset()
	}
	if err := d.receive(a, s); err != nil {
		d.log.Debug("data stream from peer ended", "peer", id.Short(), "err", err)
		_ = s.Reset()
	} else {
		_ = s.Close()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if a.inbound == s {
		a.inbound = nil
		d.prune(a)
	}
}

// receive returns nil when the peer closed the stream after a whole frame.
func (d *Datapath) receive(a *account, s Stream) error {
	r := d.receivers.get()
	defer d.receivers.put(r)
	frames := wire.NewFrameReader(s, wire.MaxPacket)
	for {
		r.pkts = r.pkts[:0]
		pkt, err := frames.Next()
		for err == nil {
			if !r.take(pkt, offload.Shape(frames.Note())) {
				err = errBadPacket
				break
			}
			if !frames.Buffered() {
				break
			}
			pkt, err = frames.Next()
		}
		if gone := d.deliver(a, r); gone != nil {
			return gone
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrLimit), errors.Is(err, errBadPacket):
			a.count.drop(DropBadFrame, 1)
			d.resets.Add(1)
			return err
		default:
			return err
		}
	}
}

// errBadPacket ends a stream that carries something else than IP packets.
var errBadPacket = errors.New("frame is not one ip packet")

// HandleDatagrams delivers datagrams that are not QUIC's, and that came by one path:
// its Via is zero, and its Local is not valid where nobody knows it. What no member has
// sealed for this node is counted and nothing else. It runs on one goroutine for each
// socket, and overwrites packets.
func (d *Datapath) HandleDatagrams(from path.Path, datagrams [][]byte) {
	r := d.receivers.get()
	defer d.receivers.put(r)
	r.pkts = r.pkts[:0]
	var sender, heard *peer
	for _, datagram := range datagrams {
		p, payload := d.open(datagram)
		if p == nil {
			continue
		}
		if p != heard {
			p.hearFrom(from, d.now())
			heard = p
		}
		if payload[0] == controlProbe || payload[0] == controlAnswer {
			if session.Flags(datagram)&(flagHead|flagTail) == 0 {
				p.hear(from, payload)
				continue
			}
		}
		if p != sender && sender != nil {
			_ = d.deliver(sender.account, r) // counted there; a device that is closed ends Run
			r.pkts = r.pkts[:0]
		}
		sender = p
		p.unpack(r, payload, session.Flags(datagram))
	}
	if sender != nil {
		_ = d.deliver(sender.account, r)
	}
}

// open returns who has sealed a datagram, and its payload, which is not empty; nil where
// nobody has.
func (d *Datapath) open(datagram []byte) (*peer, []byte) {
	index, ok := session.Index(datagram)
	a, known := (*d.arrivals.Load())[index]
	if !ok || !known {
		d.drops[DropJunk].Add(1)
		return nil, nil
	}
	payload, err := a.keys.Open(datagram[session.HeaderSize:session.HeaderSize], datagram)
	if errors.Is(err, session.ErrReplay) {
		a.to.account.count.drop(DropReplay, 1)
		return nil, nil
	}
	if err != nil || len(payload) == 0 {
		d.drops[DropJunk].Add(1)
		return nil, nil
	}
	if first, done := a.to.session.Opened(a.keys); first {
		d.dropKeys(done)
		a.to.restart() // it could not probe before
	}
	return a.to, payload
}

// unpack takes the packets out of a datagram.
func (p *peer) unpack(r *receiver, payload []byte, flags byte) {
	shape := offload.Whole
	if flags&flagPartial != 0 {
		shape = offload.Partial
	}
	if flags&(flagHead|flagTail) != 0 {
		pkt, ok := p.pieces.join(payload, flags)
		if payload = pkt; !ok {
			p.account.count.drop(DropBadFrame, 1)
		}
	}
	for len(payload) > 0 {
		n := size(payload)
		if n == 0 || n > len(payload) {
			p.account.count.drop(DropBadFrame, 1) // and where the next one begins is not known
			return
		}
		if !r.take(payload[:n:n], shape) {
			p.account.count.drop(DropBadFrame, 1)
		}
		payload = payload[n:]
	}
}

// size is the length of the IP packet that b begins with; 0 if it is none.
func size(b []byte) int {
	switch {
	case len(b) >= minIPv4 && b[0]>>4 == 4:
		return int(binary.BigEndian.Uint16(b[2:]))
	case len(b) >= minIPv6 && b[0]>>4 == 6:
		return minIPv6 + int(binary.BigEndian.Uint16(b[4:]))
	}
	return 0
}

// deliver hands the packets of a member that may pass to the device. The error is that the
// device is closed.
func (d *Datapath) deliver(a *account, r *receiver) error {
	routes := d.routes.Load()
	packets, bytes := 0, 0
	for _, pkt := range r.pkts {
		r.memo.ask(routes, a.id, pkt.src, pkt.dst)
		switch {
		case !r.memo.genuine:
			a.count.drop(DropSpoofed, pkt.Segments())
			continue
		case !r.memo.known || r.memo.to != d.self:
			a.count.drop(DropNotOurs, pkt.Segments())
			continue
		}
		packets += pkt.Segments()
		bytes += len(pkt.Data)
		if err := d.add(a, r, pkt.Packet); err != nil {
			return err
		}
	}
	a.count.received(packets, bytes)
	return d.write(a, r)
}

// add puts a packet to those before it, which are written first if it does not belong
// to them.
func (d *Datapath) add(a *account, r *receiver, pkt offload.Packet) error {
	for !r.merger.Add(pkt) {
		if err := d.write(a, r); err != nil {
			return err
		}
	}
	return nil
}

// flood is how many datagrams are a good part of what a socket holds.
const flood = 32

// yield lets others have the processor from time to time while datagrams come in: a
// socket would overflow before anybody could read from it.
func (r *receiver) yield(h offload.Header, datagrams int) {
	if !h.IsUDP() {
		return
	}
	if r.datagrams += datagrams; r.datagrams >= flood {
		r.datagrams = 0
		poll.Yield()
	}
}

// write hands the device what has been put together. The error is that the device is
// closed; what a kernel refuses is counted.
func (d *Datapath) write(a *account, r *receiver) error {
	h, parts := r.merger.Take()
	if len(parts) == 0 {
		return nil
	}
	err := d.dev.Write(h, parts)
	if err == nil {
		r.yield(h, len(parts))
		return nil
	}
	bytes := 0
	for _, part := range parts {
		bytes += len(part)
	}
	a.count.drop(DropDevice, h.Segments(bytes))
	if errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// receivers are those that nobody uses now. Unlike a sync.Pool it gives nothing to
// the collector: there are never more than were in use at once.
type receivers struct {
	mu   sync.Mutex
	idle []*receiver
}

func (p *receivers) get() *receiver {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return &receiver{}
	}
	r := p.idle[n-1]
	p.idle = p.idle[:n-1]
	return r
}

func (p *receivers) put(r *receiver) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, r)
}
