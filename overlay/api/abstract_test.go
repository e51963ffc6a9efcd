package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// as calls f in a thread that belongs to another user: sockets carry the user of
// the thread that made them.
func as(t *testing.T, uid int, f func() error) error {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), ^uintptr(0)); errno != 0 {
			done <- errno
			return
		}
		done <- f()
	}()
	return <-done
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("NOT RUN: needs root to be several users")
	}
}

// A bridge in one container and the next command in another one, which share the
// network and no directory.
func TestAbstractSocket(t *testing.T) {
	f := newFake()
	path := filepath.Join(t.TempDir(), "o.sock") // nothing is there
	l, err := ListenAbstract(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenAbstract(path); !errors.Is(err, ErrInUse) {
		t.Errorf("the name twice: %v", err)
	}
	start(t, f, func(s *Server) error { return s.ServeAbstract(l) })
	c := NewClient(Abstract(path))
	t.Cleanup(c.CloseIdle)
	ctx := testContext(t)
	if s, err := c.Status(ctx); err != nil || s.ID != testID {
		t.Errorf("status: %+v, %v", s, err)
	}
	var echo map[string]string
	if err := c.Call(ctx, Exchange{Method: http.MethodPost, Path: "/control/v1/echo", Out: &echo}); err != nil || echo["method"] != http.MethodPost {
		t.Errorf("what is for people: %v, %v", echo, err)
	}
	// Any container with the host's network can get here: nobody controls anything.
	for name, err := range map[string]error{
		"routes": c.SetRoutes(ctx, Routes{}), "annotations": c.SetAnnotations(ctx, nil), "pin": c.Pin(ctx),
		"cluster": c.PutCluster(ctx, Cluster{}),
		"sign":    func() error { _, err := c.Sign(ctx, "agent-vote", nil); return err }(),
		"certify": func() error { _, err := c.Certificate(ctx, nil); return err }(),
	} {
		var e *Error
		if !errors.As(err, &e) || e.Status != http.StatusForbidden {
			t.Errorf("%s: root got %v", name, err)
		}
	}
	if f.pinned {
		t.Error("the address was pinned")
	}
	none := NewClient(Abstract(path + "none"))
	if _, err := none.Status(ctx); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestAbstractSocketKnowsItsUsers(t *testing.T) {
	needRoot(t)
	path := filepath.Join(t.TempDir(), "o.sock")
	l, err := ListenAbstract(path)
	if err != nil {
		t.Fatal(err)
	}
	start(t, newFake(), func(s *Server) error { return s.ServeAbstract(l, 1234, overflowUID) })
	for _, tc := range []struct {
		name string
		uid  int
		ok   bool
	}{
		{"root", 0, true},
		{"the person behind the bridge", 1234, true},
		{"somebody else", 4321, false},
		{"nobody, or whoever this user namespace does not know", overflowUID, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var conn net.Conn
			if err := as(t, tc.uid, func() (err error) {
				conn, err = net.Dial("unix", Abstract(path))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
			c := &Client{http: &http.Client{Transport: transport}, base: "http://localhost", peer: "it"}
			defer c.CloseIdle()
			if _, err := c.Status(testContext(t)); (err == nil) != tc.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Anybody can take the name first. Who asks there tells nothing and believes nothing.
func TestAbstractSocketTakenByAnImpostor(t *testing.T) {
	needRoot(t)
	path := filepath.Join(t.TempDir(), "o.sock")
	for _, uid := range []int{1234, overflowUID} {
		var l net.Listener
		if err := as(t, uid, func() (err error) {
			l, err = ListenAbstract(path)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		heard := make(chan int, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n, _ := conn.Read(make([]byte, 100)) // the end of the connection is what is wanted
			heard <- n
			_ = conn.Close()
		}()
		c := NewClient(Abstract(path))
		_, err := c.Status(testContext(t))
		if !errors.Is(err, ErrImpostor) || !strings.Contains(err.Error(), path) {
			t.Errorf("user %d: %v", uid, err)
		}
		if n := <-heard; n != 0 {
			t.Errorf("user %d heard %d bytes", uid, n)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}
