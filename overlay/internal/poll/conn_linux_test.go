package poll

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// tcpPair is a connection and its far end, which is an ordinary one.
func tcpPair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	near = Conn(raw)
	if near == raw {
		t.Fatal("nothing was made of it")
	}
	for _, c := range []net.Conn{near, far} {
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	return near, far
}

// More goes through than a socket holds, both ways at once.
func TestConn(t *testing.T) {
	near, far := tcpPair(t)
	sent := make([]byte, 16<<20)
	rand.NewChaCha8([32]byte{1}).Read(sent)
	echoed := make(chan error, 1)
	go func() {
		_, err := io.Copy(far, far)
		echoed <- errors.Join(err, far.(*net.TCPConn).CloseWrite())
	}()
	written := make(chan error, 1)
	go func() {
		n, err := near.Write(sent)
		if n != len(sent) {
			t.Errorf("wrote %d bytes", n)
		}
		written <- errors.Join(err, near.(*quietConn).Conn.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(near)
	if err := errors.Join(err, <-written, <-echoed); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes come back, and they are others", len(got))
	}
}

// Reads and writes end as those of an ordinary connection do.
func TestConnEnds(t *testing.T) {
	// write fills the socket, and waits for room.
	write := func(c net.Conn) error {
		_, err := c.Write(make([]byte, 64<<20))
		return err
	}
	read := func(c net.Conn) error {
		_, err := c.Read(make([]byte, 1))
		return err
	}
	soon := func(f func()) { time.AfterFunc(10*time.Millisecond, f) }
	tests := map[string]struct {
		do   func(net.Conn) error
		ends func(near, far net.Conn)
		want error
	}{
		"a read at its deadline":            {read, func(near, _ net.Conn) { _ = near.SetReadDeadline(time.Now().Add(time.Millisecond)) }, os.ErrDeadlineExceeded},
		"a write at its deadline":           {write, func(near, _ net.Conn) { _ = near.SetWriteDeadline(time.Now().Add(time.Millisecond)) }, os.ErrDeadlineExceeded},
		"a read that waits, closed":         {read, func(near, _ net.Conn) { soon(func() { _ = near.Close() }) }, net.ErrClosed},
		"a write that waits, closed":        {write, func(near, _ net.Conn) { soon(func() { _ = near.Close() }) }, net.ErrClosed},
		"a read, closed before":             {read, func(near, _ net.Conn) { _ = near.Close() }, net.ErrClosed},
		"a read after the peer's last":      {read, func(_, far net.Conn) { _ = far.Close() }, io.EOF},
		"a read of what the peer resets":    {read, func(_, far net.Conn) { reset(far) }, syscall.ECONNRESET},
		"a write to who has gone meanwhile": {write, func(_, far net.Conn) { soon(func() { reset(far) }) }, syscall.ECONNRESET},
		"a read of nothing":                 {func(c net.Conn) error { _, err := c.Read(nil); return err }, func(net.Conn, net.Conn) {}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			near, far := tcpPair(t)
			tt.ends(near, far)
			if err := eventually(t, func() error { return tt.do(near) }); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

func reset(c net.Conn) { _, _ = c.(*net.TCPConn).SetLinger(0), c.Close() }

func TestConnWithoutDescriptor(t *testing.T) {
	near, far := net.Pipe()
	defer func() { _, _ = near.Close(), far.Close() }()
	if Conn(near) != near {
		t.Error("something was made of it")
	}
}
