//go:build !linux

package socket

import (
	"errors"
	"net"
	"net/netip"
)

// Socket is a plain UDP socket: data packets need Linux, and packets take streams
// elsewhere.
type Socket struct{ *net.UDPConn }

// Sender is never made.
type Sender struct{}

// Listen opens the socket on an address of the network "udp4" or "udp6".
func Listen(network string, addr *net.UDPAddr, _ Receiver) (*Socket, error) {
	conn, err := net.ListenUDP(network, addr)
	if err != nil {
		return nil, err
	}
	return &Socket{conn}, nil
}

// NewSender says that there is none.
func (*Socket) NewSender(netip.AddrPort) (*Sender, error) { return nil, errors.ErrUnsupported }

// Send is never called.
func (*Sender) Send([][]byte) (int, error) { return 0, errors.ErrUnsupported }

// Offer is never called.
func (*Sender) Offer([]byte) error { return errors.ErrUnsupported }

// Stats returns nothing.
func (*Socket) Stats() Stats { return Stats{} }
