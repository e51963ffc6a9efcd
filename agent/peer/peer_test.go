package peer

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/rights"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// net/http lingers half a second after it refused a request whose body it did not read.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// world is a mesh that all fake overlays of a test see.
type world struct{ nodes []api.Node }

// fakeOverlay is one member's overlay daemon.
type fakeOverlay struct {
	world *world
	key   ed25519.PrivateKey
	chain func(public []byte) ([][]byte, error) // nil: an honest one
}

func (f *fakeOverlay) Nodes(context.Context, uint64, time.Duration) (api.NodeList, error) {
	return api.NodeList{Nodes: f.world.nodes}, nil
}

func (f *fakeOverlay) Certificate(_ context.Context, public []byte) ([][]byte, error) {
	if f.chain != nil {
		return f.chain(public)
	}
	return certify(f.key, f.key, public)
}

// certify makes [leaf, root] where the leaf is signed by signer and the root is of key.
func certify(key, signer ed25519.PrivateKey, public []byte) ([][]byte, error) {
	pub, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "identity"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), KeyUsage: x509.KeyUsageDigitalSignature}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, pub, signer)
	return [][]byte{leafDER, rootDER}, err
}

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func idOf(key ed25519.PrivateKey) identity.ID { return identity.ID(key.Public().(ed25519.PublicKey)) }

// join adds a member to the world and returns its overlay.
func (w *world) join(t *testing.T, name, addr string) *fakeOverlay {
	t.Helper()
	key := newKey(t)
	w.nodes = append(w.nodes, api.Node{ID: idOf(key), Name: name, Kind: api.KindNode, Addresses: []netip.Addr{netip.MustParseAddr(addr)}})
	return &fakeOverlay{world: w, key: key}
}

// start serves h, which all members may call, for the member behind o on
// 127.0.0.2 and returns the port.
func start(t *testing.T, o *fakeOverlay, h http.Handler) uint16 {
	t.Helper()
	return startAll(t, o, []Endpoint{{Pattern: "/", Right: rights.Peer, Handle: h.ServeHTTP}})
}

func startAll(t *testing.T, o *fakeOverlay, endpoints []Endpoint) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	p := New(Options{Overlay: o, Cluster: "home"})
	go func() { done <- p.serve(ctx, l, endpoints) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

func echo(w http.ResponseWriter, r *http.Request) {
	c, ok := CallerOf(r)
	if !ok {
		api.WriteError(w, errors.New("no caller"))
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		api.WriteError(w, &api.Error{Message: err.Error(), Status: http.StatusRequestEntityTooLarge})
		return
	}
	_, _ = io.WriteString(w, c.Node.Name+" said "+string(body))
}

func TestCall(t *testing.T) {
	w := &world{}
	alice, bob := w.join(t, "alice", "127.0.0.1"), w.join(t, "bob", "127.0.0.2")
	port := start(t, bob, http.HandlerFunc(echo))
	p := New(Options{Overlay: alice, Port: port})
	defer p.CloseIdle()
	got, err := p.Post(t.Context(), idOf(bob.key), "/v1/echo", []byte("hello"))
	if err != nil || string(got) != "alice said hello" {
		t.Errorf("got %q, %v", got, err)
	}
	_, err = p.Post(t.Context(), idOf(bob.key), "/v1/echo", make([]byte, maxBody+1))
	var e *api.Error
	if !errors.As(err, &e) || e.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("too large a body: %v", err)
	}
}

// The table of endpoints decides who may call what; the handlers ask nothing.
func TestEndpointsDemandTheirRight(t *testing.T) {
	w := &world{}
	alice, bob := w.join(t, "alice", "127.0.0.1"), w.join(t, "bob", "127.0.0.2")
	port := startAll(t, bob, []Endpoint{
		{Pattern: "POST /join", Right: rights.Join, Handle: echo},
		{Pattern: "POST /grant", Right: rights.Grant, Hint: "ask on a laptop", Handle: echo},
		{Pattern: "POST /forgotten", Handle: echo},
	})
	p := New(Options{Overlay: alice, Port: port})
	defer p.CloseIdle()
	for _, tc := range []struct {
		kind, networkID, path string
		status                int // 0: answered
	}{
		{api.KindNode, "home", "/join", 0},
		{api.KindNode, "other", "/join", http.StatusForbidden},
		{api.KindNode, "", "/join", http.StatusForbidden},
		{api.KindBridge, "home", "/join", http.StatusForbidden},
		{"", "home", "/join", http.StatusForbidden},
		{api.KindBridge, "other", "/grant", 0},
		{api.KindNode, "home", "/grant", http.StatusForbidden},
		{api.KindNode, "home", "/forgotten", http.StatusForbidden},
		{api.KindBridge, "home", "/forgotten", http.StatusForbidden},
	} {
		nodes := slices.Clone(w.nodes)
		for i := range nodes {
			nodes[i].Kind, nodes[i].NetworkID = tc.kind, tc.networkID
		}
		w.nodes = nodes
		_, err := p.Post(t.Context(), idOf(bob.key), tc.path, nil)
		var e *api.Error
		if got := errors.As(err, &e); got != (tc.status != 0) || got && e.Status != tc.status {
			t.Errorf("%s of %q asks %s: %v, want status %d", tc.kind, tc.networkID, tc.path, err, tc.status)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		name  string
		setup func(t *testing.T, w *world, alice, bob *fakeOverlay)
		want  string
	}{
		{"a caller that is no member", func(t *testing.T, w *world, alice, _ *fakeOverlay) {
			alice.key = newKey(t)
		}, ErrNotMember.Error()},
		{"a caller from another member's address", func(_ *testing.T, w *world, _, _ *fakeOverlay) {
			w.nodes[0].Addresses = []netip.Addr{netip.MustParseAddr("127.0.0.9")}
		}, "does not belong to alice"},
		{"a caller with a leaf of somebody else", func(t *testing.T, _ *world, alice, _ *fakeOverlay) {
			other := newKey(t)
			alice.chain = func(p []byte) ([][]byte, error) { return certify(alice.key, other, p) }
		}, "tls"},
		{"a caller without its identity certificate", func(_ *testing.T, _ *world, alice, _ *fakeOverlay) {
			alice.chain = func(p []byte) ([][]byte, error) {
				c, err := certify(alice.key, alice.key, p)
				return c[:1], err
			}
		}, "tls"},
		{"another node at the address", func(t *testing.T, w *world, _, _ *fakeOverlay) {
			w.nodes[1].ID = idOf(newKey(t))
		}, "answered instead of"},
		{"an ID that nobody knows", func(_ *testing.T, w *world, _, _ *fakeOverlay) {
			w.nodes = w.nodes[:1]
		}, ErrNotMember.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := &world{}
			alice, bob := w.join(t, "alice", "127.0.0.1"), w.join(t, "bob", "127.0.0.2")
			port := start(t, bob, http.HandlerFunc(echo))
			target := idOf(bob.key)
			tc.setup(t, w, alice, bob)
			if len(w.nodes) > 1 {
				target = w.nodes[1].ID
			}
			p := New(Options{Overlay: alice, Port: port})
			defer p.CloseIdle()
			_, err := p.Post(t.Context(), target, "/v1/echo", nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestServerWantsACertificate(t *testing.T) {
	w := &world{}
	bob := w.join(t, "bob", "127.0.0.2")
	port := start(t, bob, http.HandlerFunc(echo))
	c, err := tls.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port).String(), &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		_, err = c.Read(make([]byte, 1)) // TLS 1.3 tells after the handshake
		_ = c.Close()
	}
	if err == nil {
		t.Error("a connection without certificate was served")
	}
}

func TestErrorsTravel(t *testing.T) {
	w := &world{}
	alice, bob := w.join(t, "alice", "127.0.0.1"), w.join(t, "bob", "127.0.0.2")
	port := start(t, bob, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		api.WriteError(w, &api.Error{Message: "no", Hint: "ask later", Status: http.StatusConflict})
	}))
	p := New(Options{Overlay: alice, Port: port})
	defer p.CloseIdle()
	var e *api.Error
	_, err := p.Post(t.Context(), idOf(bob.key), "/x", nil)
	if !errors.As(err, &e) || e.Status != http.StatusConflict || e.Hint != "ask later" {
		t.Errorf("got %v", err)
	}
}

func TestCertificateIsRenewed(t *testing.T) {
	w := &world{}
	alice := w.join(t, "alice", "127.0.0.1")
	now := time.Now()
	c := &credentials{overlay: alice, now: func() time.Time { return now }}
	first, err := c.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.get(t.Context()); err != nil || again != first {
		t.Errorf("a fresh certificate was not kept: %v", err)
	}
	now = now.Add(renewAfter)
	if later, err := c.get(t.Context()); err != nil || later == first {
		t.Errorf("an old certificate was kept: %v", err)
	}
}

func TestVerifyChainRefusesOtherKeys(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifyChain([]*x509.Certificate{cert, cert}); err == nil {
		t.Error("an ECDSA identity was accepted")
	}
	if _, err := verifyChain(nil); err == nil {
		t.Error("an empty chain was accepted")
	}
}
