package mesh

import (
	"bufio"
	"context"
	"errors"
	"net"
	"sync"
	"syscall"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	p2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"golang.org/x/sys/unix"

	"github.com/kairos-io/kairos/overlay/internal/poll"
)

// TLS makes a system call of each record of 16 KiB, and reads them as one by one. What
// travels here is larger: a corkedTLS hands the kernel all records of one write at once,
// and takes as many as have come.
type corkedTLS struct{ *p2ptls.Transport }

var _ sec.SecureTransport = corkedTLS{}

// Sizes in bytes.
const (
	readAhead  = 128 << 10 // from a TCP connection
	maxMessage = 128 << 10 // of a stream, before others have their turn
)

// SecureInbound implements sec.SecureTransport.
func (t corkedTLS) SecureInbound(ctx context.Context, raw net.Conn, p peer.ID) (sec.SecureConn, error) {
	c := &corkedConn{Conn: poll.Conn(raw)}
	secure, err := t.Transport.SecureInbound(ctx, c, p)
	return c.under(secure, err)
}

// SecureOutbound implements sec.SecureTransport.
func (t corkedTLS) SecureOutbound(ctx context.Context, raw net.Conn, p peer.ID) (sec.SecureConn, error) {
	c := &corkedConn{Conn: poll.Conn(raw)}
	secure, err := t.Transport.SecureOutbound(ctx, c, p)
	return c.under(secure, err)
}

// corkedConn is the connection below TLS. While the cork is in, writes are collected.
type corkedConn struct {
	net.Conn
	ahead *bufio.Reader // since the first Read; of one goroutine at a time

	mu     sync.Mutex // guards what follows, and the order of writes
	corked bool
	wait   []byte
}

// Read implements net.Conn.
func (c *corkedConn) Read(b []byte) (int, error) {
	if c.ahead == nil {
		c.ahead = bufio.NewReaderSize(c.Conn, readAhead)
	}
	return c.ahead.Read(b)
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

// under puts the connection under one that TLS has made of it.
func (c *corkedConn) under(secure sec.SecureConn, err error) (sec.SecureConn, error) {
	if err != nil {
		return nil, err
	}
	return &secureConn{SecureConn: secure, below: c}, nil
}

// secureConn puts the cork in for the time of one Write.
type secureConn struct {
	sec.SecureConn
	writing sync.Mutex
	below   *corkedConn
}

// Write implements net.Conn.
func (c *secureConn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.below.cork()
	n, err := c.SecureConn.Write(b)
	if flushErr := c.below.uncork(); err == nil && flushErr != nil {
		return 0, flushErr
	}
	return n, err
}

// maxSegment is the TCP payload that fits the smallest packet every link of IPv6 takes
// (RFC 8200, section 5). Kernels do not look for what a path takes unless they are told
// to (RFC 4821), and learn nothing where ICMP is dropped.
const maxSegment = 1280 - 40 - 20

// smallSegments bounds the segments of a connection in both directions: what this end
// announces binds the other one.
func smallSegments(_, _ string, raw syscall.RawConn) error {
	var optErr error
	err := raw.Control(func(fd uintptr) {
		optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, maxSegment)
	})
	return errors.Join(err, optErr)
}
