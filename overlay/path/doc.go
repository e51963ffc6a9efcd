// Package path knows which ways there are to a peer, what is known of each, and which
// one packets take. It is pure: sockets and clocks belong to the caller.
//
// # A path is a value
//
// A Path is a socket of this machine, the address that packets leave from, the address
// that they go to, and the member that passes them on, if any. Two paths are the same
// if all of that is. The zero Path is Stream: packets as frames on a stream of the
// peer's connection, which works wherever there is a connection. It is the path of
// last resort, and a value in the choice like the others.
//
// # From candidate to path
//
// A Set holds the paths to one peer. A path begins as a candidate: a connection of the
// peer goes there, an authenticated packet came from there, the network of this machine
// has changed and the kernel may choose another source address, or the chosen path fell
// silent and the peer is said to be there as well.
//
//	            small probe answered,        a probe of the floor
//	            over the path it asks of     or more answered
//	candidate -------------------------> proven ------------> alive <--> suspect
//	    ^                                                       |           |
//	    |                                                       | refused   | silent
//	    +-------------------------------------------------------+-----------+
//
// Nothing but small probes goes to what is not proven: few, at a bounded rate, and no
// larger than what the peer answers with. So whoever forges or repeats the outer source
// address of a packet moves no traffic, and makes this node send next to nothing to a
// third party. The number of paths is bounded; what connections use stays.
//
// # Is it alive?
//
// An authenticated packet that comes by a path says that it is. Where packets are sent
// and nothing comes back for some round trips the path is probed; what stays silent then
// is suspect at once and dead within two seconds. That packets come says nothing of the
// way there: a path that is used is asked every second as well. One that nobody uses is
// left in peace.
//
// # How large may packets be?
//
// The Prober searches between a floor and the most that is wanted (RFC 8899), and looks
// again and again whether packets of that size still get through while such are sent.
package path
