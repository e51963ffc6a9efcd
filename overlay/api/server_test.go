package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func startUnix(t *testing.T, f *fake) (path string, c *Client) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "run", "o.sock")
	l, err := ListenUnix(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	start(t, f, func(s *Server) error { return s.ServeUnix(l) })
	c = NewClient(path)
	t.Cleanup(c.CloseIdle)
	return path, c
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestClientOverSocket(t *testing.T) {
	f := newFake()
	_, c := startUnix(t, f)
	ctx := testContext(t)

	s, err := c.Status(ctx)
	if err != nil || s.ID != testID || s.Uptime != Duration(90*time.Second) || s.Quorum != 2 {
		t.Errorf("status: %+v, %v", s, err)
	}
	if p, err := c.Peers(ctx); err != nil || p == nil || len(p) != 0 {
		t.Errorf("peers: %v, %v", p, err)
	}
	if r, err := c.Records(ctx); err != nil || len(r) != 1 || r[0].Seq != 7 {
		t.Errorf("records: %v, %v", r, err)
	}
	if err := c.SetAnnotations(ctx, map[string]string{NoteRole: "server"}); err != nil {
		t.Error(err)
	}
	if l, err := c.Nodes(ctx, 0, 0); err != nil || l.Revision != 2 || l.Nodes[0].Annotations[NoteRole] != "server" {
		t.Errorf("nodes: %+v, %v", l, err)
	}
	routes := Routes{Announce: []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24")}, Accept: Accept{NetworkID: "home"}}
	if err := c.SetRoutes(ctx, routes); err != nil || f.routes.Announce[0] != routes.Announce[0] || f.routes.Accept != routes.Accept {
		t.Errorf("routes: %+v, %v", f.routes, err)
	}
	if err := c.Pin(ctx); err != nil || !f.pinned {
		t.Errorf("pin: %v", err)
	}
	if err := c.Pin(ctx); err == nil || err.Error() != "pinned twice" {
		t.Errorf("second pin: %v", err)
	}
	if sig, err := c.Sign(ctx, "agent-vote", []byte("x")); err != nil || string(sig) != "agent-vote\x00x" {
		t.Errorf("sign: %q, %v", sig, err)
	}
	if chain, err := c.Certificate(ctx, []byte{4}); err != nil || len(chain) != 2 || chain[0][0] != 4 {
		t.Errorf("certificate: %v, %v", chain, err)
	}
	var echo map[string]string
	if err := c.Call(ctx, Exchange{Method: http.MethodPost, Path: "/control/v1/echo", Out: &echo}); err != nil || echo["method"] != http.MethodPost {
		t.Errorf("extra handler: %v, %v", echo, err)
	}
}

func TestClusterDocument(t *testing.T) {
	_, c := startUnix(t, newFake())
	ctx := testContext(t)
	var e *Error
	if _, err := c.Cluster(ctx); !errors.As(err, &e) || e.Status != http.StatusNotFound || e.Hint != "wait for it" {
		t.Fatalf("before: %v", err)
	}
	if err := c.PutCluster(ctx, Cluster{NetworkID: "home", UID: "u", Phase: "running"}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Cluster(ctx); err != nil || got.UID != "u" {
		t.Fatalf("after: %+v, %v", got, err)
	}
}

func TestControlRefusals(t *testing.T) {
	_, c := startUnix(t, newFake())
	ctx := testContext(t)
	for _, tc := range []struct {
		name, method, path string
		in                 any
		want               int
	}{
		{"a context of the overlay's own", http.MethodPost, "/control/v1/sign", SignRequest{Context: "record", Message: []byte("x")}, http.StatusForbidden},
		{"an empty context", http.MethodPost, "/control/v1/sign", SignRequest{}, http.StatusForbidden},
		{"no key", http.MethodPost, "/control/v1/certificate", CertificateRequest{}, http.StatusBadRequest},
		{"wrong type", http.MethodPut, "/control/v1/annotations", []int{1}, http.StatusBadRequest},
		{"wrong method", http.MethodPost, "/control/v1/annotations", map[string]string{}, http.StatusMethodNotAllowed},
		{"read path by put", http.MethodPut, "/api/v1/status", struct{}{}, http.StatusMethodNotAllowed},
		{"unknown path", http.MethodPost, "/control/v1/nothing", struct{}{}, http.StatusNotFound},
		{"too large", http.MethodPut, "/control/v1/annotations", map[string]string{"a": strings.Repeat("x", maxBody)}, http.StatusRequestEntityTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var e *Error
			if err := c.Call(ctx, Exchange{Method: tc.method, Path: tc.path, In: tc.in}); !errors.As(err, &e) || e.Status != tc.want {
				t.Errorf("got %v, want status %d", err, tc.want)
			}
		})
	}
}

func TestLongPoll(t *testing.T) {
	f := newFake()
	_, c := startUnix(t, f)
	ctx := testContext(t)
	if l, err := c.Nodes(ctx, 0, time.Minute); err != nil || l.Revision != 1 {
		t.Fatalf("something newer is there at once: %+v, %v", l, err)
	}
	got := make(chan NodeList, 1)
	go func() {
		l, err := c.Nodes(ctx, 1, time.Minute)
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	f.bump()
	select {
	case l := <-got:
		if l.Revision != 2 {
			t.Errorf("got revision %d", l.Revision)
		}
	case <-ctx.Done():
		t.Fatal("the change did not end the wait")
	}
	if l, err := c.Nodes(ctx, 2, time.Millisecond); err != nil || l.Revision != 2 {
		t.Errorf("the end of the wait answers too: %+v, %v", l, err)
	}
}

func TestBadWait(t *testing.T) {
	addr := startTCP(t, newFake())
	c := NewTCPClient(addr)
	t.Cleanup(c.CloseIdle)
	for _, q := range []string{"?after=-1", "?after=x", "?wait=soon", "?wait=-3s"} {
		var e *Error
		if err := c.Call(testContext(t), Exchange{Method: http.MethodGet, Path: "/api/v1/nodes" + q}); !errors.As(err, &e) || e.Status != http.StatusBadRequest {
			t.Errorf("%s: %v", q, err)
		}
	}
}

func getText(t *testing.T, addr, path string) (int, string) {
	t.Helper()
	resp := raw(t, addr, attack{line: "GET " + path})
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestProbes(t *testing.T) {
	f := newFake()
	addr := startTCP(t, f)
	if code, _ := getText(t, addr, "/readyz"); code != http.StatusOK {
		t.Errorf("ready: %d", code)
	}
	f.setNotReady(errors.New("the device is not up"))
	if code, body := getText(t, addr, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "the device is not up") {
		t.Errorf("not ready: %d %s", code, body)
	}
	if code, _ := getText(t, addr, "/healthz"); code != http.StatusOK {
		t.Errorf("healthz must not depend on readiness: %d", code)
	}
	if code, body := getText(t, addr, "/"); code != http.StatusOK || !strings.Contains(body, "/api/v1/nodes") {
		t.Errorf("index: %d %s", code, body)
	}
}

func TestSocketFile(t *testing.T) {
	path, _ := startUnix(t, newFake())
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := ListenUnix(path, -1); !errors.Is(err, ErrInUse) {
		t.Errorf("second listener: %v", err)
	}
}

func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "o.sock")
	// A dead process: its socket stays, nobody listens.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := ListenUnix(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + ".lock"} {
		if _, err := os.Lstat(p); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", p, err)
		}
	}
	// Somebody without our lock serves it.
	foreign, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = foreign.Close() }()
	if _, err := ListenUnix(path, -1); !errors.Is(err, ErrInUse) {
		t.Errorf("served by another: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenUnix(file, -1); err == nil || errors.Is(err, ErrInUse) {
		t.Errorf("a plain file: %v", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "keep" {
		t.Errorf("the file was touched: %q, %v", b, err)
	}
}

// TestStartersExclude: who has the lock is about to make the socket.
func TestStartersExclude(t *testing.T) {
	path := filepath.Join(t.TempDir(), "o.sock")
	lock, err := lockFile(path + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenUnix(path, -1); !errors.Is(err, ErrInUse) {
		t.Errorf("while another starts: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := ListenUnix(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestPeerCredentials(t *testing.T) {
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	g := peerGuard{guests: []int{1234}, next: next, guest: next, log: NewServer(newFake().config()).cfg.Log}
	for _, tc := range []struct {
		name string
		uid  any
		want int
	}{
		{"root", 0, http.StatusOK},
		{"own user", os.Getuid(), http.StatusOK},
		{"a guest", 1234, http.StatusOK},
		{"another user", 4321, http.StatusForbidden},
		{"unknown", nil, http.StatusForbidden},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := context.WithValue(t.Context(), peerKey{}, tc.uid)
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
			if err != nil {
				t.Fatal(err)
			}
			w := &statusOnly{header: http.Header{}}
			g.ServeHTTP(w, r)
			if w.status != tc.want {
				t.Errorf("got %d, want %d", w.status, tc.want)
			}
		})
	}
}

// TestGuestsControlNothing: whoever the socket was given to reads and uses what
// was added for people; identity and routes stay root's.
func TestGuestsControlNothing(t *testing.T) {
	f := newFake()
	cfg := f.config()
	cfg.Extra = map[string]http.Handler{"kubeconfig": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })}
	s := NewServer(cfg)
	g := peerGuard{guests: []int{1234}, next: http.HandlerFunc(s.serveAll), guest: http.HandlerFunc(s.serveGuest), log: s.cfg.Log}
	for _, tc := range []struct {
		method, path, body string
		guest              int
	}{
		{http.MethodGet, "/api/v1/status", "", http.StatusOK},
		{http.MethodPost, "/control/v1/kubeconfig", "{}", http.StatusOK},
		{http.MethodPut, "/control/v1/annotations", "{}", http.StatusForbidden},
		{http.MethodPut, "/control/v1/routes", "{}", http.StatusForbidden},
		{http.MethodPost, "/control/v1/pin", "{}", http.StatusForbidden},
		{http.MethodPost, "/control/v1/sign", `{"context":"agent-genesis"}`, http.StatusForbidden},
		{http.MethodPost, "/control/v1/certificate", "{}", http.StatusForbidden},
		{http.MethodPut, "/control/v1/documents/cluster", "{}", http.StatusForbidden},
		{http.MethodGet, "/control/v1/none", "", http.StatusForbidden},
	} {
		t.Run(tc.method+tc.path, func(t *testing.T) {
			ctx := context.WithValue(t.Context(), peerKey{}, 1234)
			r, err := http.NewRequestWithContext(ctx, tc.method, tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			w := &statusOnly{header: http.Header{}}
			g.ServeHTTP(w, r)
			if w.status != tc.guest {
				t.Errorf("a guest got %d, want %d", w.status, tc.guest)
			}
		})
	}
}

// TestOtherUserIsRefused connects as another user to a socket whose mode was
// opened by mistake: the credentials still count.
func TestOtherUserIsRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user; make test runs as root")
	}
	path, own := startUnix(t, newFake())
	for dir := filepath.Dir(path); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	other := NewClient(path)
	defer other.CloseIdle()
	other.http.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
		return dialAs(65534, path)
	}
	var e *Error
	if _, err := other.Status(testContext(t)); !errors.As(err, &e) || e.Status != http.StatusForbidden {
		t.Errorf("another user: %v", err)
	}
	if _, err := own.Status(testContext(t)); err != nil {
		t.Errorf("own user: %v", err)
	}
}

// dialAs connects on a thread of its own that is user uid from then on; the
// thread ends with the goroutine, since it is never unlocked.
func dialAs(uid int, path string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			err = errno
			return
		}
		conn, err = net.Dial("unix", path)
	}()
	<-done
	return conn, err
}

func TestSocketDirectoryIsReachable(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	top := filepath.Join(t.TempDir(), "a")
	l, err := ListenUnix(filepath.Join(top, "b", "o.sock"), -1)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{top, filepath.Join(top, "b")} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(top); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", top, err)
	}
}

// TestProtectFollowsNoLink: the owner of the directory may have put a link where
// the socket was.
func TestProtectFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	victim, link := filepath.Join(dir, "victim"), filepath.Join(dir, "o.sock")
	if err := os.WriteFile(victim, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, victim} {
		if err := protect(path, -1); err == nil {
			t.Errorf("%s was taken for the socket", path)
		}
	}
	if info, err := os.Stat(victim); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("the file behind has mode %v, %v", info.Mode(), err)
	}
}

func TestClientErrors(t *testing.T) {
	ctx := testContext(t)
	missing := NewClient(filepath.Join(t.TempDir(), "none.sock"))
	if _, err := missing.Status(ctx); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
	refused := &Client{http: &http.Client{Transport: failing{syscall.EACCES}}, base: "http://localhost", peer: "x"}
	if _, err := refused.Status(ctx); !errors.Is(err, ErrForbidden) {
		t.Errorf("no permission: %v", err)
	}
}

type failing struct{ err error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }
