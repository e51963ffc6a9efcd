// Package mesh keeps a node connected to every other member of its network:
// one admitted connection for each, over QUIC where UDP gets through and over
// TCP where it does not, with streams by protocol name on top.
//
// It stands directly on libp2p's transports (QUIC, and TCP with TLS 1.3 and
// yamux), its resource manager and its peer IDs. libp2p's host is left out on
// purpose: identify, ping and multistream negotiation are talk that a mesh of
// admitted members does not need and that a stranger must not hear. A
// connection becomes a peer in one step, and only there:
//
//	dial or accept -> TLS handshake -> admission.Gate -> peer table -> streams
//	                                         |
//	                                         +-> closed, counted
//
// Before the peer table nobody reads a stream of the connection; a stranger
// finds a QUIC or TLS endpoint that speaks random bytes and hangs up.
//
// # Two connections to one peer
//
// Nodes that start together dial each other together, and a peer reached over
// TCP is dialled over QUIC in the background until that works. Both ends keep
// the same connection of several: QUIC before TCP; of two that came up within
// a moment the one with the lower session name; else the newer. The other
// takes no new streams and is closed after a grace period, so that long-lived
// streams can move (see PathChanged). Connections of a peer's earlier run are
// closed at once.
//
// # Liveness
//
// Whoever has sent nothing for ten seconds sends ten bytes, which are
// answered. Whoever has heard nothing for fifteen closes the connection. Both
// count any byte on any stream, so that a busy connection carries no beats.
// A node that finds its own timers late (it was paused or starved) does not
// blame its peers for the silence.
package mesh
