//go:build !linux

package socket

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
)

// Socket is a plain UDP socket: data packets need Linux, and packets take streams
// elsewhere.
type Socket struct {
	*net.UDPConn
	number uint16
	closed atomic.Bool
}

// Sender is never made.
type Sender struct{}

// Listen opens the socket on an address of the network "udp4" or "udp6".
func Listen(network string, addr *net.UDPAddr, _ Receiver) (*Socket, error) {
	conn, err := net.ListenUDP(network, addr)
	if err != nil {
		return nil, err
	}
	return &Socket{UDPConn: conn, number: newNumber()}, nil
}

// NewSender says that there is none.
func (*Socket) NewSender(_ netip.Addr, _ netip.AddrPort) (*Sender, error) {
	return nil, errors.ErrUnsupported
}

// Send is never called.
func (*Sender) Send([][]byte) (int, error) { return 0, errors.ErrUnsupported }

// Offer is never called.
func (*Sender) Offer([]byte) error { return errors.ErrUnsupported }

// Number tells the open sockets of this process apart. It is never 0.
func (s *Socket) Number() uint16 { return s.number }

// Closed reports whether Close was called.
func (s *Socket) Closed() bool { return s.closed.Load() }

// Close implements net.PacketConn.
func (s *Socket) Close() error {
	s.closed.Store(true)
	return s.UDPConn.Close()
}

// Stats returns nothing.
func (*Socket) Stats() Stats { return Stats{} }
