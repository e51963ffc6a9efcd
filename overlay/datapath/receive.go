package datapath

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/poll"
	"github.com/kairos-io/kairos/overlay/offload"
	"github.com/kairos-io/kairos/overlay/path"
	"github.com/kairos-io/kairos/overlay/route"
	"github.com/kairos-io/kairos/overlay/session"
	"github.com/kairos-io/kairos/overlay/wire"
)

// receiver is what one goroutine needs on the way in.
type receiver struct {
	pkts   []arrived
	open   opener // of datagrams
	merger offload.Merger
	memo   memo
	routes *route.Table

	packets, bytes int // that have passed and are not counted yet
	datagrams      int // since the last yield
}

// arrived is one IP packet.
type arrived struct {
	offload.Packet
	src, dst netip.Addr
}

// arrive looks at what should be one IP packet of that shape, and reports whether it is.
func arrive(data []byte, shape offload.Shape) (a arrived, ok bool) {
	a = arrived{Packet: offload.Packet{Data: data, Shape: shape}}
	a.src, a.dst, ok = parse(data)
	return a, ok && a.Valid()
}

// take adds what should be one IP packet of that shape, and reports whether it is.
func (r *receiver) take(data []byte, shape offload.Shape) bool {
	a, ok := arrive(data, shape)
	if ok {
		r.pkts = append(r.pkts, a)
	}
	return ok
}

// maxInbound are the streams of one peer that are read. It writes to one; others are
// those that it has finished, since another connection took their place. Which of two
// that come over two connections at once is the newer nobody here can tell, so that
// none may be cut off for the other.
const maxInbound = 4

// HandleStream delivers what the authenticated peer id sends on a stream of
// Protocol, until the stream ends; it then closes it. Of more than a few streams of
// the same peer it resets the one that came first.
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
	var old Stream
	if len(a.inbound) == maxInbound {
		old = a.inbound[0]
		a.inbound = slices.Delete(a.inbound, 0, 1)
	}
	a.inbound = append(a.inbound, s)
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
	if i := slices.Index(a.inbound, s); i >= 0 {
		a.inbound = slices.Delete(a.inbound, i, i+1)
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
// socket.
func (d *Datapath) HandleDatagrams(from path.Path, datagrams [][]byte) {
	r := d.receivers.get()
	defer d.receivers.put(r)
	r.routes = d.routes.Load()
	r.open.reset()
	var sender, heard *peer
	for _, datagram := range datagrams {
		p := d.openNext(r, sender, datagram)
		if p == nil {
			continue
		}
		if p != heard {
			p.hearFrom(from, d.now())
			heard = p
		}
		flags := session.Flags(datagram)
		if kind := r.open.payload[0]; (kind == controlProbe || kind == controlAnswer) && flags&(flagHead|flagTail) == 0 {
			p.hear(from, r.open.keep())
			r.open.drop()
			continue
		}
		if p != sender && sender != nil {
			_ = d.flush(sender.account, r) // counted there; a device that is closed ends Run
		}
		sender = p
		d.receiveNext(p, r, flags)
	}
	if sender != nil {
		_ = d.flush(sender.account, r)
	}
}

// openNext opens a datagram, behind those before it, and returns who has sealed it; its
// payload, which is not empty, is r.open.payload. It returns nil where nobody has. sender
// is who has sent the packets that wait to be written.
func (d *Datapath) openNext(r *receiver, sender *peer, datagram []byte) *peer {
	index, ok := session.Index(datagram)
	a, known := (*d.arrivals.Load())[index]
	if !ok || !known {
		d.drops[DropJunk].Add(1)
		return nil
	}
	lap := 0
	if a.to == sender {
		lap = r.merger.Headers()
	}
	if !r.open.fits(len(datagram)) {
		if sender != nil {
			_ = d.flush(sender.account, r)
		}
		r.open.reset()
		lap = 0
	}
	err := r.open.next(a.keys, datagram, lap)
	if errors.Is(err, session.ErrReplay) {
		a.to.account.count.drop(DropReplay, 1)
		return nil
	}
	if err != nil {
		d.drops[DropJunk].Add(1)
		return nil
	}
	if first, done := a.to.session.Opened(a.keys); first {
		d.dropKeys(done)
		a.to.restart() // it could not probe before
	}
	return a.to
}

// receiveNext takes in what is in the datagram that was opened last.
func (d *Datapath) receiveNext(p *peer, r *receiver, flags byte) {
	if d.join(p.account, r, flags) {
		return
	}
	r.pkts = r.pkts[:0]
	p.unpack(r, r.open.keep(), flags)
	for _, pkt := range r.pkts {
		_ = d.pass(p.account, r, pkt) // counted there; a device that is closed ends Run
	}
}

// shapeOf is the shape of the packets in a datagram with these flags.
func shapeOf(flags byte) offload.Shape {
	if flags&flagPartial != 0 {
		return offload.Partial
	}
	return offload.Whole
}

// unpack takes the packets out of a datagram.
func (p *peer) unpack(r *receiver, payload []byte, flags byte) {
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
		if !r.take(payload[:n:n], shapeOf(flags)) {
			p.account.count.drop(DropBadFrame, 1)
		}
		payload = payload[n:]
	}
}

// join puts the datagram that was opened last to the packets before it, if it holds one
// packet that is their next segment.
func (d *Datapath) join(a *account, r *receiver, flags byte) bool {
	payload := r.open.payload
	if r.open.lap == 0 || flags&(flagHead|flagTail) != 0 || size(payload) != len(payload) {
		return false
	}
	pkt, ok := arrive(payload, shapeOf(flags))
	if !ok || !r.mayPass(d.self, a, pkt) || !r.merger.Join(pkt.Packet) {
		return false
	}
	r.open.join()
	r.count(pkt)
	return true
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

// deliver hands the packets of a stream that may pass to the device. The error is that
// the device is closed.
func (d *Datapath) deliver(a *account, r *receiver) error {
	r.routes = d.routes.Load()
	for _, pkt := range r.pkts {
		if err := d.pass(a, r, pkt); err != nil {
			return err
		}
	}
	return d.flush(a, r)
}

// mayPass reports whether a packet of a member is from where it says, and for here.
func (r *receiver) mayPass(self identity.ID, a *account, pkt arrived) bool {
	r.memo.ask(r.routes, a.id, pkt.src, pkt.dst)
	return r.memo.genuine && r.memo.known && r.memo.to == self
}

// count notes a packet that has passed.
func (r *receiver) count(pkt arrived) {
	r.packets += pkt.Segments()
	r.bytes += len(pkt.Data)
}

// pass puts a packet to those for the device if it may pass, and counts why not. The
// error is that the device is closed.
func (d *Datapath) pass(a *account, r *receiver, pkt arrived) error {
	if !r.mayPass(d.self, a, pkt) {
		reason := DropNotOurs
		if !r.memo.genuine {
			reason = DropSpoofed
		}
		a.count.drop(reason, pkt.Segments())
		return nil
	}
	r.count(pkt)
	return d.add(a, r, pkt.Packet)
}

// flush counts the packets of a member that have passed, and hands the device the last
// of them.
func (d *Datapath) flush(a *account, r *receiver) error {
	a.count.received(r.packets, r.bytes)
	r.packets, r.bytes = 0, 0
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
