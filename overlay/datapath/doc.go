// Package datapath carries packets between the overlay interface and the peers.
//
// Outward, one goroutine takes what the device has, lets flows take turns, and passes
// each packet on (send.go):
//
//	device -> fair -> parse -> route.Lookup(dst) -> peer -> the chosen path:
//	    cut, pack, seal -> datagrams
//	    or the peer's queue -> stream
//
// Inward, the goroutine that reads a socket or a stream delivers what an
// authenticated peer sent (receive.go):
//
//	datagrams -> open -> unpack -+-> parse -> route.SourceOK(peer, src) -> is dst ours?
//	stream -> frame -------------+   -> merge -> device
//
// Packets come from the device as TCP and UDP would give them to a network card
// (package offload): up to 64 KiB with one header.
//
// # Datagrams
//
// Packets are cut at the size of their segments, or what the path takes, sealed each
// into a datagram of its own (package session), and leave by the socket, the port and
// the translator's mapping of QUIC, as many at once as one system call takes. Small
// packets that came together share a datagram. Its payload is
//
//	flag 0x01 unset   whole IP packets, back to back
//	flag 0x01 set     likewise, without their transport checksums: the seal stands for them
//	flag 0x02, 0x04   the first, the last part of a packet that the path does not take: split.go
//	first byte 0x00   a probe     } see control.go; no IP packet begins so
//	first byte 0x01   its answer  }
//
// so that each can be delivered alone, whatever becomes of those around it.
//
// # The stream
//
// It works wherever there is a connection: packets, uncut, are frames on one
// long-lived stream per peer and direction. A frame's note is its offload.Shape.
//
// # Which path
//
// A peer has keys, which end with its last connection, and paths, which come and go
// (package path says which are good and which one is chosen):
//
//	PeerUp -> handshake on a stream -> keys -> probes -> an answer: packets go there
//	another connection, another source of datagrams, another network: candidates -> probes
//	no path: the stream
//
// The path is looked up once for a run of packets. What the network below refuses is
// lost, counted, and takes another path the next time. Each peer has a goroutine that
// watches its paths (timers.go); it sleeps where nothing is sent.
//
// # What holds on every path
//
// A packet costs no allocation. A peer that does not read keeps nobody else waiting:
// queues are bounded in bytes and, by how long packets have waited or by the measured
// speed of the stream, in time. A packet that is not carried is counted by peer and
// reason and never logged; and the local sender is told by ICMP where that ends a wait.
package datapath
