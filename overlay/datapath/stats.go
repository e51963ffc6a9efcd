package datapath

import (
	"sync/atomic"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Reason is why packets were not carried. Its String is the key in Stats.
type Reason int

// The reasons, in the order of a packet's way out and then in.
const (
	DropMalformed    Reason = iota // from this host, and not one whole IP packet
	DropMulticast                  // from this host to many, or to the link only
	DropNoRoute                    // from this host to an address that no member has
	DropLocalSource                // from this host with a source that is not this member's
	DropNotConnected               // to a member without a connection
	DropTooBig                     // larger than the path to the member takes
	DropQueueFull                  // to a member that takes packets slower than they come
	DropLinkLost                   // queued when the path to the member broke
	DropBadFrame                   // from a member, not one whole IP packet; its stream was reset
	DropSpoofed                    // from a member with a source that is not the member's
	DropNotOurs                    // from a member to a destination that is not here
	DropDevice                     // for this host, but its kernel did not take it
	DropJunk                       // a datagram that no member has sealed for this one
	DropReplay                     // a datagram of a member seen before, or too late to tell
	reasons                        // how many
)

var reasonNames = [reasons]string{
	DropMalformed:    "malformed",
	DropMulticast:    "multicast",
	DropNoRoute:      "no_route",
	DropLocalSource:  "local_source",
	DropNotConnected: "not_connected",
	DropTooBig:       "too_big",
	DropQueueFull:    "queue_full",
	DropLinkLost:     "link_lost",
	DropBadFrame:     "bad_frame",
	DropSpoofed:      "spoofed",
	DropNotOurs:      "not_ours",
	DropDevice:       "device",
	DropJunk:         "junk",
	DropReplay:       "replay",
}

// String returns the reason's name in the API and in metrics.
func (r Reason) String() string {
	if r < 0 || r >= reasons {
		return "unknown"
	}
	return reasonNames[r]
}

// Stats is a snapshot of all counters since the start.
type Stats struct {
	// Drops counts packets that were not carried, of all peers, also of those
	// that are gone, and of none. Every reason is there.
	Drops map[string]uint64
	// Resets counts streams of peers that were reset because of what was on them.
	Resets uint64
	// Peers are those with a connection or an open stream.
	Peers map[identity.ID]PeerStats
}

// PeerStats counts what one peer got and sent since it came. Bytes are those
// of the packets alone. Received counts what passed all checks.
type PeerStats struct {
	TxPackets, TxBytes uint64
	RxPackets, RxBytes uint64
	Drops              map[string]uint64 // reasons that occurred
	Path               PathInfo          // the chosen one; zero without a connection
	Paths              []PathInfo        // all, the chosen one first
}

// drops counts by reason; safe for concurrent use.
type drops [reasons]atomic.Uint64

func (d *drops) snapshot(zeros bool) map[string]uint64 {
	m := make(map[string]uint64)
	for r := range d {
		if n := d[r].Load(); n > 0 || zeros {
			m[Reason(r).String()] = n
		}
	}
	return m
}

// counters belong to one peer. Its drops count in the sum of all as well.
type counters struct {
	txPackets, txBytes atomic.Uint64
	rxPackets, rxBytes atomic.Uint64
	drops              drops
	total              *drops
}

func (c *counters) drop(r Reason, n int) {
	if n > 0 {
		c.drops[r].Add(uint64(n))
		c.total[r].Add(uint64(n))
	}
}

func (c *counters) sent(packets, bytes int) {
	c.txPackets.Add(uint64(packets))
	c.txBytes.Add(uint64(bytes))
}

func (c *counters) received(packets, bytes int) {
	c.rxPackets.Add(uint64(packets))
	c.rxBytes.Add(uint64(bytes))
}

func (c *counters) snapshot() PeerStats {
	return PeerStats{
		TxPackets: c.txPackets.Load(), TxBytes: c.txBytes.Load(),
		RxPackets: c.rxPackets.Load(), RxBytes: c.rxBytes.Load(),
		Drops: c.drops.snapshot(false),
	}
}
