package socket

import (
	"net"
	"net/netip"
	"sync/atomic"
)

// Source is where packets came from: the socket by its number, the address of this
// machine that they were sent to, and the sender's. Local is not valid where the
// kernel does not tell it.
type Source struct {
	Socket uint16
	Local  netip.Addr
	Remote netip.AddrPort
}

// Receiver takes data packets of one source that came in together, in order. It
// runs on the goroutine that reads the socket; the packets are its own until it
// returns.
type Receiver func(from Source, packets [][]byte)

// numbers is the number of the socket that was opened last.
var numbers atomic.Uint32

// newNumber draws the number of a socket. A number is taken again after 65,535 others.
func newNumber() uint16 {
	for {
		if n := uint16(numbers.Add(1)); n != 0 {
			return n
		}
	}
}

// Is4 reports whether the socket's packets are those of IPv4; else they are of IPv6.
func (s *Socket) Is4() bool { return s.LocalAddr().(*net.UDPAddr).IP.To4() != nil }

// IsData reports whether the first byte of a packet says that it is not QUIC's.
func IsData(first byte) bool { return first&0xc0 == 0 }

// Stats count what happened on a socket since it was opened.
type Stats struct {
	// KernelDrops are packets that the kernel threw away because the receive buffer
	// was full; it counts modulo 2^32.
	KernelDrops uint32
	// QUICDrops are packets that quic-go had no time to read.
	QUICDrops uint64
	// Unsegmented says that the kernel or the card refused UDP_SEGMENT, so that
	// packets are sent one by one.
	Unsegmented bool
}
