package datapath

import (
	"context"
	"io"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Protocol names the streams that carry frames; its number changes with what is on them.
const Protocol = "/kairos/data/2"

// The kinds of paths.
const (
	KindDirect = "direct" // sealed datagrams
	KindStream = "stream" // frames on a stream
)

// PathInfo describes a link for people and for the choice between links.
type PathInfo struct {
	Kind   string // KindDirect or KindStream
	Up     bool   // packets have left this way, or could at once
	Why    string // in a few words
	MTU    int    // largest packet in bytes that it takes
	Queued int    // bytes that wait

	// Of KindDirect only.
	RTT, LastRTT time.Duration // smoothed, and of the last probe
	Loss         int           // probes without an answer among the last 32, in percent
}

// Stream is one ordered, authenticated byte stream from or to a peer.
type Stream interface {
	io.ReadWriteCloser
	// Reset ends the stream at once in both directions and fails a Read or
	// Write that waits on it, here and at the peer.
	Reset() error
}

// Opener opens a stream of Protocol to a connected peer, and fails when ctx ends.
type Opener interface {
	Open(ctx context.Context, id identity.ID) (Stream, error)
}

// OpenerFunc makes an Opener of a function.
type OpenerFunc func(ctx context.Context, id identity.ID) (Stream, error)

// Open implements Opener.
func (f OpenerFunc) Open(ctx context.Context, id identity.ID) (Stream, error) { return f(ctx, id) }
