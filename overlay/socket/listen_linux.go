package socket

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kairos-io/kairos/overlay/internal/poll"
)

// What the kernel is asked to hold for the socket, in bytes. What has come waits
// rather than being lost while others have the processor; what is to leave waits where
// flows take turns (package datapath) rather than here, where they do not.
const (
	receiveBuffer = 8 << 20
	sendBuffer    = 1 << 20
)

// Socket is the socket: a quic-go OOBCapablePacketConn with a ReadBatch. Its methods
// may be called from any goroutine.
type Socket struct {
	number  uint16
	fd      *poll.Descriptor
	local   *net.UDPAddr
	receive Receiver
	in      *inbox // nil when nobody reads any more
	quic    mailbox
	served  chan struct{} // closed when nobody reads any more

	drops       atomic.Uint32
	unsegmented atomic.Bool
}

// Listen opens the socket on an address of the network "udp4" or "udp6". Data
// packets go to receive.
func Listen(network string, addr *net.UDPAddr, receive Receiver) (*Socket, error) {
	conn, err := net.ListenUDP(network, addr)
	if err != nil {
		return nil, err
	}
	s := &Socket{number: newNumber(), local: conn.LocalAddr().(*net.UDPAddr), receive: receive, served: make(chan struct{})}
	if s.fd, err = takeOver(conn); err != nil {
		return nil, fmt.Errorf("set up UDP socket: %w", err)
	}
	var optErr error
	if err := errors.Join(s.fd.Control(func(fd uintptr) { optErr = s.setOptions(int(fd)) }), optErr); err != nil {
		return nil, errors.Join(fmt.Errorf("set up UDP socket: %w", err), s.fd.Close())
	}
	s.in = newInbox()
	s.quic.init()
	go s.serve()
	return s, nil
}

// takeOver takes a socket away from the runtime's poller. It closes conn.
func takeOver(conn *net.UDPConn) (*poll.Descriptor, error) {
	raw, err := conn.SyscallConn()
	fd := -1
	if err == nil {
		var dupErr error
		err = raw.Control(func(from uintptr) { fd, dupErr = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) })
		err = errors.Join(err, dupErr)
	}
	if err = errors.Join(err, conn.Close()); err != nil {
		return nil, err
	}
	return poll.New(fd)
}

// setOptions asks for what makes the socket fast. A kernel that lacks one of them
// carries the same packets slower.
func (s *Socket) setOptions(fd int) error {
	for _, o := range [...]struct{ force, plain, size int }{
		{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer},
		{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer},
	} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.force, o.size) == nil {
			continue
		}
		// Without CAP_NET_ADMIN the kernel gives as much as it lets everybody have.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.plain, o.size); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); err != nil {
		return err
	}
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if !s.Is4() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		return err
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) // since Linux 5.0
	_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	s.unsegmented.Store(err != nil) // since Linux 4.18
	return nil
}

// Stats returns the counters.
func (s *Socket) Stats() Stats {
	return Stats{KernelDrops: s.drops.Load(), QUICDrops: s.quic.dropped(), Unsegmented: s.unsegmented.Load()}
}

// Number tells the open sockets of this process apart. It is never 0.
func (s *Socket) Number() uint16 { return s.number }

// Closed reports whether Close was called.
func (s *Socket) Closed() bool { return s.fd.Closed() }

// LocalAddr implements net.PacketConn.
func (s *Socket) LocalAddr() net.Addr { return s.local }

// SyscallConn is for options of the socket.
func (s *Socket) SyscallConn() (syscall.RawConn, error) { return s.fd, nil }

// Close implements net.PacketConn. Whoever keeps a closed socket keeps little: its
// buffers are gone.
func (s *Socket) Close() error {
	err := s.fd.Close()
	<-s.served
	s.quic.empty()
	return err
}
