// Package datapath carries packets between the overlay interface and the peers.
//
// Outward, one goroutine reads the device in batches:
//
//	device -> parse -> route.Lookup(dst) -> the peer's Link -> network
//
// Inward, each link delivers what an authenticated peer sent:
//
//	network -> frame -> parse -> route.SourceOK(peer, src) -> is dst ours? -> device
//
// A Link is a way to one peer, and has two forms. The stream form works wherever
// there is a connection: packets are length-prefixed frames on one long-lived
// stream per peer and direction. The direct form seals each packet into a datagram
// of its own (overlay/session) that leaves by the socket, the port and the
// translator's mapping of QUIC. Packets take it while it is up:
//
//	PeerUp -> handshake on a stream -> keys -> probes -> an answer: up
//	up -> three probes without an answer, or packets refused: down -> probes ...
//	a connection over TCP, or none: there is no direct form
//
// A probe is as large as a packet, so that what answers says how large packets may
// be (RFC 8899): the interface's MTU if that gets through, else what a search between
// it and MinMTU finds. A size that is lost while smaller probes are answered, or that
// the kernel refuses, is given up before the way is; in use, a larger one is tried
// again every ten minutes. Senders of larger packets are told by ICMP. A way that does
// not take MinMTU is none, and the stream form takes packets of any size.
//
// The queue before both is one, so that the way can change between two batches.
//
// What holds on every path: a packet costs no allocation; a peer that does not
// read keeps nobody else waiting, because queues are per peer, bounded in bytes
// and, by the measured speed of the path, in time; a packet that is not carried
// is counted by peer and reason and never logged; and the local sender is told
// by ICMP where that ends a wait.
package datapath
