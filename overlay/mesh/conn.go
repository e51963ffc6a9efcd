package mesh

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kairos-io/kairos/overlay/admission"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/underlay"
)

// Why a connection of ours ended; the reason goes to the log.
var (
	errShutdown   = errors.New("this node shuts down")
	errDead       = errors.New("peer fell silent")
	errReplaced   = errors.New("replaced by another connection")
	errEarlierRun = errors.New("belonged to an earlier run of the peer")
	errForgotten  = errors.New("disconnected on request")
	errClone      = errors.New("another machine with the same key is connected")
)

// conn is one admitted connection.
type conn struct {
	m        *Mesh
	raw      *underlay.Conn
	adm      admission.Admission
	dialled  bool
	admitted time.Duration // mesh time
	since    time.Time

	heard   atomic.Int64 // mesh time of the last byte read, ns
	sent    atomic.Int64 // mesh time of the last byte written, ns
	rtt     atomic.Int64 // ns
	inbound atomic.Int32 // handlers that run
	beat    beat

	doubted bool        // it did not answer since the network changed; guarded by Mesh.mu
	spare   *time.Timer // closes it, since another one is better; guarded by Mesh.mu

	closeOnce sync.Once
	reason    error // set before done is closed
	done      chan struct{}
}

func (m *Mesh) newConn(raw *underlay.Conn, adm admission.Admission, dialled bool) *conn {
	c := &conn{
		m: m, raw: raw, adm: adm, dialled: dialled,
		admitted: m.now(), since: time.Now(), done: make(chan struct{}),
	}
	c.heard.Store(int64(c.admitted))
	c.sent.Store(int64(c.admitted))
	c.rtt.Store(int64(adm.RTT))
	return c
}

// close ends the connection; its accept loop then takes it off the table.
func (c *conn) close(reason error) {
	c.closeOnce.Do(func() {
		c.reason = reason
		close(c.done)
		c.beat.stop()
		// The connection is given up: how its closing fails does not matter.
		_ = c.raw.Close(reasonOf(reason))
	})
}

// reasonOf is what the other side is told.
func reasonOf(err error) link.Reason {
	switch err {
	case errShutdown:
		return link.ReasonShutdown
	case errReplaced, errEarlierRun:
		return link.ReasonReplaced
	case errClone:
		return link.ReasonClone
	}
	return link.ReasonNone
}

// silence is how long ago the peer was heard.
func (c *conn) silence() time.Duration { return c.m.now() - time.Duration(c.heard.Load()) }
