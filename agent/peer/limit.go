package peer

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"
)

// limited is a listener with at most maxConns connections open, and at most
// maxConnsEach from one address: one member, or the pods and processes of one
// machine, cannot take the places of the others. Who is beyond a limit is
// closed at once.
type limited struct {
	net.Listener

	mu   sync.Mutex
	open map[netip.Addr]int // never with a 0
	all  int
}

func newLimited(l net.Listener) *limited {
	return &limited{Listener: l, open: map[netip.Addr]int{}}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := netip.Addr{}
		if at, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
			from = at.Addr().Unmap()
		}
		if l.take(from) {
			return &limitedConn{Conn: c, free: sync.OnceFunc(func() { l.give(from) })}, nil
		}
		_ = c.Close()
	}
}

func (l *limited) take(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxConns || l.open[from] >= maxConnsEach {
		return false
	}
	l.all++
	l.open[from]++
	return true
}

func (l *limited) give(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.open[from]--; l.open[from] == 0 {
		delete(l.open, from)
	}
}

type limitedConn struct {
	net.Conn
	free func()
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}

// quota bounds how often one address may ask. Answering costs signatures to be
// checked, a question to the overlay and sometimes a write to disk, for others'
// requests as well as for a stranger's.
type quota struct {
	mu sync.Mutex
	by map[netip.Addr]*rate.Limiter
}

// allow takes one request off the address' budget.
func (q *quota) allow(from netip.Addr) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.by[from]
	if l == nil {
		if q.by == nil || len(q.by) >= maxBudgets {
			q.by = map[netip.Addr]*rate.Limiter{} // a fresh budget for everybody: memory counts more
		}
		l = rate.NewLimiter(requestsPerSecond, requestsBurst)
		q.by[from] = l
	}
	return l.Allow()
}
