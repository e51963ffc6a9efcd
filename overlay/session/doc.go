// Package session turns packets between two members into datagrams that nobody
// else can read, forge or replay. It is pure: sockets, streams, clocks and
// randomness belong to the caller.
//
// # Handshake
//
// Two admitted peers that share an authenticated stream agree on keys by Noise
// (revision 34), pattern NNpsk0, with X25519, SHA-256 and the AEAD of the
// handshake ChaCha20-Poly1305:
//
//	initiator -> responder   psk, e        payload: offer
//	responder -> initiator   e, ee         payload: answer
//
// The pre-shared key is the secret of the stream: what the two ends of its connection
// have agreed on when they were admitted, and nobody else knows. The prologue names both
// members, initiator first, so that keys made with one are of no use with
// another; who they are, the stream has proved already. The keys then belong to the two
// members: they outlive that connection. Offer and answer are
//
//	suites   1 byte   bit set: 1 AES-256-GCM in hardware, 2 ChaCha20-Poly1305
//	index    4 bytes  big endian: how the sender wants its packets marked
//
// and the answer's suites have one bit: what both use. AES is used where both
// processors have it.
//
// # Packet
//
//	0               1               2               3
//	+---------------+---------------+---------------+---------------+
//	| 0x01          | flags         | 0             | 0             |
//	+---------------+---------------+---------------+---------------+
//	| index of the receiver                                         |
//	+---------------------------------------------------------------+
//	| counter                                                       |
//	|                                                               |
//	+---------------------------------------------------------------+
//	| AEAD of the payload, its tag of 16 bytes last                 |
//	+---------------------------------------------------------------+
//
// Numbers are big endian. The first byte's upper two bits are zero, which no
// QUIC packet has (RFC 9000, section 17, the fixed bit), so that both can share
// a socket. The flags are the caller's. The 16 bytes of the header are the AEAD's associated data, and its
// nonce is four zero bytes and the counter: a key never sees a nonce twice,
// because a counter is used once and a key ends before counters do.
//
// # Keys
//
// Each direction has a key of its own. A pair of keys is one of three:
//
//	          InstallInitiated            Opened (the first packet with it)
//	handshake ----------------> current <------------------------------ next
//	                               |                                     ^
//	                               | replaced            InstallAnswered |
//	                               v                                 handshake
//	                            previous -> forgotten
//
// The responder sends with new keys only once a packet with them has come in,
// (or none does for GraceTime, and there are no others: then it asks for one with them),
// and until then both ends still open what the old ones sealed: no packet is
// lost to a change of keys. The initiator asks for new keys after RekeyAfterTime
// or RekeyAfterPackets; keys that nobody replaced end at RejectAfterTime and
// RejectAfterPackets.
//
// # Replays
//
// A counter is accepted once, and only if it is among the last WindowSize ones
// (RFC 6479). The window moves after the AEAD has said yes, so that forged
// packets cannot move it.
package session
