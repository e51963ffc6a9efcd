package datapath

import (
	"context"
	"io"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/path"
	"github.com/kairos-io/kairos/overlay/secret"
)

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

// SessionStream is a stream of SessionProtocol.
type SessionStream interface {
	Stream
	// Secret is known to the two ends of the stream's connection and to nobody else.
	Secret() secret.Key
}

// Network is what lies below, as far as datagrams go.
type Network interface {
	// OpenSession opens a stream of SessionProtocol to a connected peer, and fails when
	// ctx ends.
	OpenSession(ctx context.Context, id identity.ID) (SessionStream, error)
	// Elsewhere returns other paths on which the peer may be: nobody has heard it there.
	Elsewhere(id identity.ID) []path.Path
	// Sender returns a new sender of datagrams by a path. It fails where the path's
	// socket is gone.
	Sender(p path.Path) (Sender, error)
}

// Sender sends datagrams by one path. Send waits for room and returns how many left;
// Offer does not wait. One goroutine uses it at a time. overlay/socket documents them.
type Sender interface {
	Send(packets [][]byte) (sent int, err error)
	Offer(packet []byte) error
}
