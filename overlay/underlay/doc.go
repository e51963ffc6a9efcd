// Package underlay is the network below the mesh: UDP and TCP sockets, QUIC and TLS
// connections on them, and what the kernel says of this machine's own addresses. It owns
// every libp2p type. What crosses its border is netip.AddrPort, identity.ID, link.Stream
// and the types of this package.
//
//	mesh ── Dial, Accept ──▶ Underlay ──▶ one UDP socket per listen address: QUIC, data packets
//	     ◀── Conn ─────────           └─▶ one TCP listener per listen address: TLS, yamux
//
// # What a connection proves
//
// Both ends have shown that they hold the key behind their identity.ID, and no more:
// anybody can make a key. Nothing may be served before the token was proven on it
// (package admission).
//
// # Addresses
//
// Addresses are values from the parser to the kernel. They are unmapped and have no zone:
// an address with a zone is neither dialled nor accepted, so that text of a stranger
// cannot become part of an address (a zone may be any text at all). Link-local IPv6
// addresses, which mean nothing without one, are therefore no underlay.
//
// # Clocks
//
// No part of a handshake depends on the wall clock. Certificates are valid from year 1 to
// 9999; whom they speak for is decided by their signature alone.
//
// # Strangers
//
// Config.Allow is asked before any work for a connection. Behind it libp2p's resource
// manager bounds handshakes, connections and memory, by address and in total, and a
// handshake that has not ended in time is cut.
package underlay
