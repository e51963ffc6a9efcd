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
// A Link is a way to one peer. The one here, the stream form, carries packets
// as length-prefixed frames on one long-lived stream per peer and direction. A
// faster form over UDP fits the same interface, which is why Send takes runs of
// packets, never blocks and keeps nothing, and why Path tells a packet size.
//
// What holds on every path: a packet costs no allocation; a peer that does not
// read keeps nobody else waiting, because queues are per peer, bounded in bytes
// and, by the measured speed of the path, in time; a packet that is not carried
// is counted by peer and reason and never logged; and the local sender is told
// by ICMP where that ends a wait.
package datapath
