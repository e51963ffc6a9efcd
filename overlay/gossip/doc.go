// Package gossip keeps the member tables of a mesh alike.
//
// Each node writes to every connected peer on one long-lived stream of its
// own, and reads one from each. Two kinds of messages travel (package wire):
//
//	digest   which record versions I know       on connect; now and then; when I lack something
//	delta    records that you seem to lack      in answer to a digest; when something changed
//
// For each peer a node remembers what that peer knows, from its digests and
// from what went back and forth, and sends the difference: nothing goes twice.
// The author of a change sends it to all of its peers. Whoever hears of it
// passes it to a few more, which reaches those that the author is not
// connected to; what that misses, the digests find, about once a minute with
// one random peer.
//
// A record belongs to its author: it is signed, and its sequence number grows
// over restarts (the count of starts in the upper half, see Config). An author
// that meets a younger record of its own, from before its disk was replaced,
// jumps over it.
package gossip
