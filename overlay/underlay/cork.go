package underlay

import (
	"crypto/tls"
	"net"
	"sync"
	"time"

	"github.com/kairos-io/kairos/overlay/internal/poll"
)

// Sizes in bytes.
const (
	readFirst = 4 << 10   // read at once from a TCP connection, until that much came at once
	readAhead = 128 << 10 // and from then on
	readShut  = 64 << 10  // read from a peer that was not let in
)

// lingerTime bounds how long a connection that this end has closed still listens to the
// other: closing a socket that holds unread bytes makes the kernel send a reset, which
// may overtake what was written last, the reason.
const lingerTime = time.Second

// corkedConn is the connection below TLS. TLS makes a system call of each record of 16
// KiB, and reads them one by one. What travels here is larger: while the cork is in,
// writes are collected and go to the kernel at once, and a read takes as much as has
// come. A connection on which little comes costs little memory.
type corkedConn struct {
	net.Conn
	buffer, ahead []byte // ahead is what is left of buffer; of one goroutine at a time

	mu     sync.Mutex // guards what follows, and the order of writes
	corked bool
	wait   []byte
}

func newCorkedConn(raw net.Conn) *corkedConn { return &corkedConn{Conn: poll.Conn(raw)} }

// Read implements net.Conn.
func (c *corkedConn) Read(b []byte) (int, error) {
	if len(c.ahead) == 0 {
		if c.buffer == nil {
			c.buffer = make([]byte, readFirst)
		}
		n, err := c.Conn.Read(c.buffer)
		if err != nil {
			return 0, err
		}
		if c.ahead = c.buffer[:n]; n == readFirst && len(c.buffer) == readFirst {
			c.buffer = make([]byte, readAhead)
		}
	}
	n := copy(b, c.ahead)
	c.ahead = c.ahead[n:]
	return n, nil
}

// Write implements net.Conn.
func (c *corkedConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.corked {
		return c.Conn.Write(b)
	}
	c.wait = append(c.wait, b...)
	return len(b), nil
}

func (c *corkedConn) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

func (c *corkedConn) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	_, err := c.Conn.Write(c.wait)
	c.wait = c.wait[:0]
	return err
}

// secureConn is TLS over a corkedConn, with the cork in for the time of one Write.
type secureConn struct {
	*tls.Conn
	below   *corkedConn
	raw     *net.TCPConn
	writing sync.Mutex

	shut, closed   chan struct{} // shut is closed when the peer is let in; nil: it is
	unshut, unopen sync.Once
	heard          int // bytes read while shut
}

// newSecureConn wraps a connection after its handshake. It reads no more than readShut
// bytes of a peer that has to be let in.
func newSecureConn(c *tls.Conn, below *corkedConn, raw *net.TCPConn, shut bool) *secureConn {
	s := &secureConn{Conn: c, below: below, raw: raw, closed: make(chan struct{})}
	if shut {
		s.shut = make(chan struct{})
	}
	return s
}

// letIn lets everything be read.
func (c *secureConn) letIn() {
	if c.shut != nil {
		c.unshut.Do(func() { close(c.shut) })
	}
}

// Read implements net.Conn.
func (c *secureConn) Read(b []byte) (int, error) {
	if c.shut != nil && c.heard >= readShut {
		select {
		case <-c.shut:
		case <-c.closed:
		}
	}
	n, err := c.Conn.Read(b)
	if c.heard < readShut {
		c.heard += n
	}
	return n, err
}

// Write implements net.Conn.
func (c *secureConn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.below.cork()
	n, err := c.Conn.Write(b)
	if flushErr := c.below.uncork(); err == nil && flushErr != nil {
		return 0, flushErr
	}
	return n, err
}

// Close ends this side and goes on reading for lingerTime at most. The socket is open
// until raw is closed.
func (c *secureConn) Close() error {
	c.unopen.Do(func() { close(c.closed) })
	if err := c.raw.CloseWrite(); err != nil {
		return c.raw.Close()
	}
	return c.raw.SetReadDeadline(time.Now().Add(lingerTime))
}
