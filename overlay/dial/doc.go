// Package dial decides whom a node dials, where, over what and when. It is a
// value without I/O: what happened goes in with the time at which it did, and
// Next says which dials to start, which to give up and when to look again.
// One goroutine with one timer serves any number of members.
//
// # Targets
//
// A target is a member to be connected to, or a configured host of which
// nobody knows yet who lives there. It is kept for a reason, and each reason
// ends in time:
//
//	record       from Learn to Forget
//	configured   as long as the configuration
//	met          Timing.Met after its last connection
//	rumour       Timing.Rumour after it was first heard of on the local network
//
// Rumours are what anybody on the local network may make up: their number is
// bounded, they replace each other and nobody else, and their dials have slots
// of their own, so that no flood of them holds up a member.
//
// # Rounds
//
// A target that is not connected is dialled in rounds. In a round each of its
// addresses gets its turn, the most promising first: where it was reached last,
// heard on the same subnet, on the same subnet, heard, the others in the order
// in which they were told, and last those that this machine has itself. The
// next follows when the one before fails or after Timing.Step, QUIC with a head
// start before TCP (as in RFC 8305). Between rounds it waits for an eighth
// of its absence, so that whatever comes back is found after about an eighth of
// the time that it was away, and what is gone for good costs next to nothing.
//
//	         +--> waiting --next--> round open --connected--> connected
//	new -----+      ^                  |                       |     |
//	                +---all failed-----+      lost, doubted ---+     |
//	                ^                                                |
//	                +-------- over TCP: a round of QUIC alone -------+
//
// The lower ID of two dials at once, the higher after Timing.Deference. A change
// of the network begins a new round for everybody, whatever is under way.
//
// When there are more dials to make than slots, who is away for less than a
// minute goes first and has slots of its own; every fourth turn is another's, of
// those the one's that has waited longest beyond its pause.
package dial
