// Package socket is the one UDP socket of a node: QUIC and data packets share it,
// and with it a port, a hole in a firewall and a translator's mapping.
//
// A Socket is the net.PacketConn that quic-go is given, with a ReadBatch of its own.
// One goroutine reads it: it takes batches from the kernel (recvmmsg, UDP_GRO), splits
// what the kernel has put together, and looks at the first byte. Where its upper two
// bits are zero the packet is data and goes to the Receiver at once, on that goroutine;
// any other is QUIC's (RFC 9000, section 17: the fixed bit) and waits in a mailbox until
// quic-go reads it. Data never passes through quic-go, and control messages reach QUIC
// as the kernel wrote them, so that it keeps ECN and the address that a packet was sent
// to.
//
// A Sender sends runs of packets from one address to another with one system call
// (UDP_SEGMENT) where the kernel and the card can do that, and one by one where they
// cannot. A socket may have several addresses, or all of the machine's: packets leave
// from the one that their path uses (IP_PKTINFO), so that whoever answers, and every
// translator in between, sees one pair of addresses.
package socket
