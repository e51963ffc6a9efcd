// Package gossip keeps the member tables of a mesh alike.
//
// Each node writes to every connected peer on one stream of its own, and reads
// those of each. Four kinds of messages travel (package wire):
//
//	summary  a hash of the live records I know   on connect; now and then; at the end of an answer
//	digest   which versions of them I know       when the peer's summary is another one
//	want     whose records I lack                in answer to a digest
//	delta    records that you seem to lack       in answer to both; when something changed
//
// The author of a change sends it to all of its peers. Whoever hears of it
// passes it to a few more, which reaches those that the author is not connected
// to; what that misses, the summaries find, about once a minute with one random
// peer. For each peer a node remembers the IDs of what changed since it was last
// sent something, which is nothing when all is quiet.
//
// Equal summaries need no answer. If they differ, one side sends a digest, one at
// a time to all of its peers: after each it looks with new summaries at who still
// differs. An exchange that brought nothing is not repeated soon. Who is gone is in
// no summary and no digest.
//
// # Who owns what
//
//	peers' streams ─▶ readers: pace, parse ──▶ owner: core (decides, no I/O) ──▶ senders ─▶ peers' streams
//	                    ▲          │ verify       member.Table                   one batch each
//	                    └──────────┘                │        │
//	                                        Members(): Snapshot  teller ─▶ mesh
//
// The core and the table belong to one goroutine, that of Run, or to the caller
// while that does not run. It never waits: not for a peer, not for the mesh, not for
// a reader of the snapshots.
//
// # Authors
//
// A record belongs to its author: it is signed, and its sequence number grows
// over restarts (the count of starts in the upper half, see Config). An author
// that meets a younger record of its own, from before its disk was replaced,
// jumps over it, into the next upper half. If the run that wrote it is still there
// and jumps in turn, two machines have the key: Member.Cloned tells, and the jumps
// become rare.
package gossip
