package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
)

// ErrInUse is returned, wrapped, when another process serves the socket.
var ErrInUse = errors.New("already in use")

// peerGuard lets root and the process's own user through to next, guests to
// guest and nobody else. The socket's mode says who may connect too; this holds
// when somebody changes the mode, and for whoever connected before it was set.
type peerGuard struct {
	guests      []int
	next, guest http.Handler
	log         *slog.Logger
}

type peerKey struct{}

// withPeer notes who connected.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	uid, err := PeerUID(conn)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, uid)
}

func (g peerGuard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	uid, ok := r.Context().Value(peerKey{}).(int)
	switch {
	case ok && (uid == 0 || uid == os.Getuid()):
		g.next.ServeHTTP(w, r)
	case ok && slices.Contains(g.guests, uid):
		g.guest.ServeHTTP(w, r)
	default:
		g.refuse(w, uid)
	}
}

func (g peerGuard) refuse(w http.ResponseWriter, uid int) {
	g.log.Warn("refused a control connection", "uid", uid)
	WriteError(w, &Error{Message: "permission denied", Hint: "this socket belongs to another user", Status: http.StatusForbidden})
}
