package datapath

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/secret"
	"github.com/kairos-io/kairos/overlay/session"
)

// Sender sends datagrams to one peer. Send waits for room and returns how many left;
// Offer does not wait. One goroutine uses it at a time. overlay/socket documents them.
type Sender interface {
	Send(packets [][]byte) (sent int, err error)
	Offer(packet []byte) error
}

// Direct is the network below, as far as it is UDP.
type Direct interface {
	Opener // of SessionProtocol
	// Sender returns a new way to send datagrams where the peer's connection goes.
	// It fails where that is not over UDP.
	Sender(id identity.ID) (Sender, error)
}

// DirectConfig is what the direct way works with.
type DirectConfig struct {
	Direct
	PSK    secret.Key
	Suites session.Suites
}

// direct is the direct way to one peer, for as long as the peer has a connection.
type direct struct {
	d      *Datapath
	peer   *peer
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{} // something has changed that run should look at

	session session.Session

	limit atomic.Int32 // the prober's mtu

	mu      sync.Mutex // guards what follows
	prober  prober
	doubts  int           // handshakes for want of an answer, since there was one
	wanted  bool          // there were packets since the last handshake
	turn    time.Duration // when to begin the first handshake without packets
	trouble string        // why the way is not up, where that is not for want of an answer

	saying  sync.Mutex // guards what follows
	control Sender
	scratch []byte
}

// agreed says that there was a handshake.
func (w *direct) agreed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted, w.turn, w.trouble = false, math.MaxInt64, ""
}

// arrival is where packets with one index belong.
type arrival struct {
	keys *session.Keys
	to   *direct
}
