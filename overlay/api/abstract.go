package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
)

// An abstract socket (unix(7)) is a name in the network namespace instead of a
// file. It is how a bridge in one container is reached from another one that
// shares the host's network and no directory with it. That makes it weaker than
// a file, and both ends know it:
//
//   - No directory guards it. Every process in the network namespace can connect,
//     root in any container among them, so the server gives to root, and to its own
//     user, what a guest gets (ServeAbstract): never the control of this machine's
//     network nor the member's identity.
//   - Whoever comes first has the name. So a client speaks only to a process of root
//     or of its own user, which the kernel vouches for. Root in a container with the
//     host's network still is root here: only who expects a bridge in a container
//     should ask.

// Abstract is the abstract name that goes with a socket's path.
func Abstract(path string) string { return "@" + path }

// overflowUID is what the kernel shows of a user that this user namespace does not
// know (user_namespaces(7)): it may be anybody.
const overflowUID = 65534

// ErrImpostor: a process of another user has taken the abstract name.
var ErrImpostor = errors.New("a process of another user answers there")

// ListenAbstract takes the abstract name of path, until the listener is closed or
// the process ends. ErrInUse comes wrapped.
func ListenAbstract(path string) (net.Listener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: Abstract(path), Net: "unix"})
	if errors.Is(err, syscall.EADDRINUSE) {
		err = ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", Abstract(path), err)
	}
	return l, nil
}

// ServeAbstract serves on l until Close what ServeUnix gives to guests: to root,
// to the process's own user and to those in guests.
func (s *Server) ServeAbstract(l net.Listener, guests ...int) error {
	return s.serve(limitListener(l, maxConns), s.abstractGuard(guests), withPeer)
}

func (s *Server) abstractGuard(guests []int) peerGuard {
	g := peerGuard{guests: guests, log: s.cfg.Log}
	g.guest = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if uid, ok := r.Context().Value(peerKey{}).(int); !ok || uid == overflowUID {
			g.refuse(w, uid)
			return
		}
		s.serveGuest(w, r)
	})
	g.next = g.guest
	return g
}

// dialUnix connects to a socket; to an abstract one only if root or this process's
// own user is at the other end.
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil || !strings.HasPrefix(path, "@") {
		return conn, err
	}
	uid, err := PeerUID(conn)
	if err == nil && (uid == overflowUID || uid != 0 && uid != os.Getuid()) {
		err = fmt.Errorf("%w (user %d)", ErrImpostor, uid)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
