package socket

import "net/netip"

// Receiver takes data packets of one sender that came in together, in order. It
// runs on the goroutine that reads the socket; the packets are its own until it
// returns.
type Receiver func(from netip.AddrPort, packets [][]byte)

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
