package socket

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// bufferSize is what the kernel is asked to hold for the socket in each direction,
// in bytes: 20 ms at 3 Gbit/s.
const bufferSize = 8 << 20

// Socket is the socket. It is a quic-go OOBCapablePacketConn. ReadBatch is for one
// goroutine at a time; everything else may be used from any.
type Socket struct {
	*net.UDPConn

	raw     syscall.RawConn
	receive Receiver
	in      inbox

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
	s := &Socket{UDPConn: conn, receive: receive}
	if s.raw, err = conn.SyscallConn(); err == nil {
		var optErr error
		err = s.raw.Control(func(fd uintptr) { optErr = s.setOptions(int(fd)) })
		err = errors.Join(err, optErr)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up UDP socket: %w", err), conn.Close())
	}
	s.in.init(s.tryReceive)
	return s, nil
}

// setOptions asks for what makes the socket fast. A kernel that lacks one of them
// carries the same packets slower.
func (s *Socket) setOptions(fd int) error {
	for force, plain := range map[int]int{unix.SO_RCVBUFFORCE: unix.SO_RCVBUF, unix.SO_SNDBUFFORCE: unix.SO_SNDBUF} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bufferSize) == nil {
			continue
		}
		// Without CAP_NET_ADMIN the kernel gives as much as it lets everybody have.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, bufferSize); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); err != nil {
		return err
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) // since Linux 5.0
	_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	s.unsegmented.Store(err != nil) // since Linux 4.18
	return nil
}

// Stats returns the counters.
func (s *Socket) Stats() Stats {
	return Stats{KernelDrops: s.drops.Load(), Unsegmented: s.unsegmented.Load()}
}
