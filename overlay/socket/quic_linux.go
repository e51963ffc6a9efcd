package socket

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	letters    = 128  // packets that may wait for QUIC
	letterSize = 1536 // bytes of one: quic-go reads no larger ones
)

// letter is a packet for QUIC, as the kernel gave it.
type letter struct {
	data    [letterSize]byte
	oob     [oobSize]byte
	n, oobn int
	from    netip.AddrPort
}

// mailbox is where packets wait until quic-go reads them.
type mailbox struct {
	mu       sync.Mutex
	changed  sync.Cond
	ring     []letter
	first, n int
	drops    uint64
	err      error // that ends reading
	deadline time.Time
	timer    *time.Timer
}

func (b *mailbox) init() {
	b.changed.L = &b.mu
	b.ring = make([]letter, letters)
}

// put takes a packet. One that finds no room is lost, as in a full socket.
func (b *mailbox) put(packet, oob []byte, from netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.n == len(b.ring) {
		b.drops++
		return
	}
	l := &b.ring[(b.first+b.n)%len(b.ring)]
	l.n, l.oobn, l.from = copy(l.data[:], packet), copy(l.oob[:], oob), from
	b.n++
	b.changed.Signal()
}

// dropped is how many packets found no room.
func (b *mailbox) dropped() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.drops
}

// empty throws away what nobody has read, and the room for it.
func (b *mailbox) empty() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ring, b.first, b.n = nil, 0, 0
}

// end says that nothing comes any more.
func (b *mailbox) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
	b.changed.Broadcast()
}

// get waits for packets, or for the deadline.
func (b *mailbox) get(ms []ipv4.Message) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.n == 0 {
		switch {
		case b.err != nil:
			return 0, b.err
		case !b.deadline.IsZero() && !time.Now().Before(b.deadline):
			return 0, os.ErrDeadlineExceeded
		}
		b.changed.Wait()
	}
	for n < len(ms) && b.n > 0 {
		l := &b.ring[b.first]
		ms[n].N = copy(ms[n].Buffers[0], l.data[:l.n])
		ms[n].NN = copy(ms[n].OOB, l.oob[:l.oobn])
		ms[n].Addr = net.UDPAddrFromAddrPort(l.from)
		b.first, b.n = (b.first+1)%len(b.ring), b.n-1
		n++
	}
	return n, nil
}

func (b *mailbox) setDeadline(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
	}
	if b.deadline = t; !t.IsZero() {
		b.timer = time.AfterFunc(time.Until(t), func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.changed.Broadcast()
		})
	}
}

// ReadBatch reads packets of QUIC, at least one. flags is not used.
func (s *Socket) ReadBatch(ms []ipv4.Message, _ int) (int, error) { return s.quic.get(ms) }

// ReadMsgUDP is ReadBatch for one packet.
func (s *Socket) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	ms := [1]ipv4.Message{{Buffers: [][]byte{b}, OOB: oob}}
	if _, err := s.ReadBatch(ms[:], 0); err != nil {
		return 0, 0, 0, nil, err
	}
	return ms[0].N, ms[0].NN, 0, ms[0].Addr.(*net.UDPAddr), nil
}

// ReadFrom implements net.PacketConn.
func (s *Socket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, _, _, addr, err := s.ReadMsgUDP(b, nil)
	if err != nil {
		return 0, nil, err
	}
	return n, addr, nil
}

// WriteMsgUDP sends a packet, and waits for room. oob is control messages, as for
// sendmsg(2).
func (s *Socket) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	to, err := s.sockaddr(addr)
	if err != nil {
		return 0, 0, err
	}
	var sendErr error
	err = s.fd.Write(func(fd uintptr) bool {
		for {
			n, sendErr = unix.SendmsgN(int(fd), b, oob, to, unix.MSG_DONTWAIT)
			if sendErr != unix.EINTR {
				return sendErr != unix.EAGAIN
			}
		}
	})
	if err != nil {
		return 0, 0, s.explain("write", err)
	}
	if sendErr != nil {
		return 0, 0, s.explain("write", os.NewSyscallError("sendmsg", sendErr))
	}
	return n, len(oob), nil
}

// WriteTo implements net.PacketConn.
func (s *Socket) WriteTo(b []byte, addr net.Addr) (int, error) {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, s.explain("write", net.InvalidAddrError(addr.String()))
	}
	n, _, err := s.WriteMsgUDP(b, nil, udp)
	return n, err
}

func (s *Socket) sockaddr(addr *net.UDPAddr) (unix.Sockaddr, error) {
	at := addr.AddrPort()
	ip := at.Addr().Unmap()
	if s.Is4() != ip.Is4() {
		return nil, s.explain("write", errors.New("not the socket's address family"))
	}
	if ip.Is4() {
		return &unix.SockaddrInet4{Port: int(at.Port()), Addr: ip.As4()}, nil
	}
	zone, err := zoneIndex(ip.Zone())
	if err != nil {
		return nil, s.explain("write", err)
	}
	return &unix.SockaddrInet6{Port: int(at.Port()), Addr: ip.As16(), ZoneId: zone}, nil
}

// explain wraps an error as package net does, and gives that of a closed socket the
// name that callers look for.
func (s *Socket) explain(op string, err error) error {
	if s.fd.Closed() {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: "udp", Source: s.local, Err: err}
}

// SetReadDeadline implements net.PacketConn.
func (s *Socket) SetReadDeadline(t time.Time) error {
	s.quic.setDeadline(t)
	return nil
}

// SetDeadline implements net.PacketConn.
func (s *Socket) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetWriteDeadline implements net.PacketConn. It does nothing: a socket's buffer
// empties by itself.
func (s *Socket) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer does nothing: the buffer is as large as the system gives already.
func (s *Socket) SetReadBuffer(int) error { return nil }

// SetWriteBuffer does nothing: see SetReadBuffer.
func (s *Socket) SetWriteBuffer(int) error { return nil }
