package poll

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn returns conn with a Read and a Write that do not tell the scheduler of their
// system calls, which do not sleep: copying what a socket holds takes so long that the
// runtime's monitor would take the processor away, and stay awake for it. Waits are
// conn's own, with its deadlines. What has no descriptor comes back as it is.
func Conn(conn net.Conn) net.Conn {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return conn
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return conn
	}
	return &quietConn{Conn: conn, raw: raw}
}

type quietConn struct {
	net.Conn
	raw syscall.RawConn
}

// Read implements net.Conn.
func (c *quietConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	t := transfer{trap: unix.SYS_READ, b: b}
	if err := c.raw.Read(t.try); err != nil {
		return 0, err
	}
	switch {
	case t.errno != 0:
		return 0, os.NewSyscallError("read", t.errno)
	case t.n == 0:
		return 0, io.EOF
	}
	return t.n, nil
}

// Write implements net.Conn.
func (c *quietConn) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		t := transfer{trap: unix.SYS_WRITE, b: b[done:]}
		if err := c.raw.Write(t.try); err != nil {
			return done, err
		}
		if t.errno != 0 {
			return done, os.NewSyscallError("write", t.errno)
		}
		done += t.n
	}
	return done, nil
}

// transfer is one read(2) or write(2), and what came of it.
type transfer struct {
	trap  uintptr
	b     []byte
	n     int
	errno syscall.Errno
}

// try reports whether the call needs no wait.
func (t *transfer) try(fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall(t.trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.b))), uintptr(len(t.b)))
		if errno == unix.EINTR {
			continue
		}
		if t.errno = errno; errno == 0 {
			t.n = int(n)
		}
		return errno != unix.EAGAIN
	}
}
