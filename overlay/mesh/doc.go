// Package mesh keeps a node connected to every other member of its network:
// one admitted connection for each, over QUIC where UDP gets through and over
// TCP where it does not, with streams by protocol name on top. It decides who,
// when and how long; package underlay opens the connections, package dial
// says whom to dial when. A connection becomes a peer in one step, and only there:
//
//	dial or accept -> handshake -> admission.Gate -> other run? -> peer table -> streams
//	                                    |               |
//	                                    +---------------+-> closed, counted
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
// streams can move (see PathChanged).
//
// All connections of a peer belong to one run of its process. When another run
// calls, the connections there are pinged: if they are silent, the peer has
// restarted, and if one answers, two machines have one key (see Clone).
//
// # Liveness
//
// Whoever has sent nothing for ten seconds sends ten bytes, which are
// answered. Whoever has heard nothing for fifteen closes the connection. Both
// count any byte on any stream, so that a busy connection carries no beats.
// A node that finds its own timers late (it was paused or starved) does not
// blame its peers for the silence.
//
// When the machine's network changed or it woke up, all peers are pinged at
// once. A connection that gives no answer is doubted: it comes after any other,
// and the peer is dialled as if it were gone, until either end of that.
//
// # Locks
//
// One lock guards the peer table and the scheduler. It is never held across a
// call that waits, nor across one into another package that has a lock, but the
// event queues of the subscribers.
package mesh
