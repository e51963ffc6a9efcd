package underlay

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests; none of them waits that long.
const patience = 20 * time.Second

var (
	loopback = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	both     = []Transport{QUIC, TCP}
)

func testKey(t testing.TB) identity.Key {
	t.Helper()
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// start opens an underlay with a key of its own, on loopback unless cfg says otherwise.
func start(t testing.TB, cfg Config) *Underlay {
	t.Helper()
	if cfg.Key.IsZero() {
		cfg.Key = testKey(t)
	}
	if cfg.Listen == nil {
		cfg.Listen = loopback
	}
	u, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return u
}

func (u *Underlay) id() identity.ID { return u.cfg.Key.ID() }

func patient(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// connect dials one underlay from another, and returns both ends.
func connect(t testing.TB, via Transport, from, to *Underlay) (near, far *Conn) {
	t.Helper()
	ctx := patient(t)
	near, err := from.Dial(ctx, via, to.Bound()[0], to.id())
	if err != nil {
		t.Fatal(err)
	}
	if far, err = to.Accept(ctx); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// over runs a test over each transport.
func over(t *testing.T, f func(t *testing.T, via Transport)) {
	for _, via := range both {
		t.Run(via.String(), func(t *testing.T) { f(t, via) })
	}
}

// stream opens one at near, says hello on it, and accepts it at far.
func stream(t testing.TB, near, far *Conn) (a, b link.Stream) {
	t.Helper()
	ctx := patient(t)
	a, err := near.OpenStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if b, err = far.AcceptStream(ctx); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(b, got); err != nil || string(got) != "hello" {
		t.Fatalf("read %q, %v", got, err)
	}
	return a, b
}

func TestConnect(t *testing.T) {
	over(t, func(t *testing.T, via Transport) {
		a, b := start(t, Config{}), start(t, Config{})
		near, far := connect(t, via, a, b)
		if near.Peer() != b.id() || far.Peer() != a.id() {
			t.Errorf("peers %s and %s", near.Peer().Short(), far.Peer().Short())
		}
		for _, c := range []*Conn{near, far} {
			if c.Transport() != via {
				t.Errorf("transport %s", c.Transport())
			}
			if (c.Socket() != nil) != (via == QUIC) {
				t.Errorf("socket %v", c.Socket())
			}
		}
		if near.Remote() != b.Bound()[0] || far.Local() != b.Bound()[0] || near.Local() != far.Remote() {
			t.Errorf("addresses: %s - %s, and at the other end %s - %s", near.Local(), near.Remote(), far.Local(), far.Remote())
		}
		// More than a window holds.
		for _, ends := range [][2]*Conn{{near, far}, {far, near}} {
			echo(t, ends[0], ends[1], 3<<20)
		}
	})
}

// echo sends bytes there and back on a new stream.
func echo(t *testing.T, near, far *Conn, size int) {
	t.Helper()
	s, peer := stream(t, near, far)
	for _, end := range []link.Stream{s, peer} {
		if err := end.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	sent := make([]byte, size)
	_, _ = rand.Read(sent)
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() {
		if _, err := io.Copy(peer, peer); err != nil {
			t.Errorf("echo: %v", err)
		}
		if err := peer.CloseWrite(); err != nil {
			t.Errorf("end the echo: %v", err)
		}
	})
	work.Go(func() {
		if _, err := s.Write(sent); err != nil {
			t.Errorf("write: %v", err)
		}
		if err := s.CloseWrite(); err != nil {
			t.Errorf("end writing: %v", err)
		}
	})
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes come back, %v", len(got), len(sent), err)
	}
}

// Whoever answers is learned over both transports, where nobody in particular is wanted.
func TestUnknownPeer(t *testing.T) {
	over(t, func(t *testing.T, via Transport) {
		a, b := start(t, Config{}), start(t, Config{})
		c, err := a.Dial(patient(t), via, b.Bound()[0], identity.ID{})
		if err != nil {
			t.Fatal(err)
		}
		if c.Peer() != b.id() {
			t.Errorf("%s answers, want %s", c.Peer().Short(), b.id().Short())
		}
	})
}

func TestWrongPeer(t *testing.T) {
	over(t, func(t *testing.T, via Transport) {
		a, b := start(t, Config{}), start(t, Config{})
		want := testKey(t).ID()
		_, err := a.Dial(patient(t), via, b.Bound()[0], want)
		var wrong *WrongPeerError
		if !errors.As(err, &wrong) || wrong.Want != want || wrong.Got != b.id() {
			t.Errorf("%v, want that %s answers", err, b.id().Short())
		}
	})
}

// A peer is told why, whichever end closes.
func TestCloseReason(t *testing.T) {
	reasons := []link.Reason{link.ReasonNone, link.ReasonShutdown, link.ReasonReplaced, link.ReasonRefused, link.ReasonClone}
	over(t, func(t *testing.T, via Transport) {
		a, b := start(t, Config{}), start(t, Config{})
		for _, reason := range reasons {
			for _, dialler := range []bool{true, false} {
				near, far := connect(t, via, a, b)
				if !dialler {
					near, far = far, near
				}
				s, peer := stream(t, near, far)
				if err := near.Close(reason); err != nil {
					t.Fatal(err)
				}
				// The reason is there as soon as a stream has failed.
				if _, err := peer.Read(make([]byte, 1)); err == nil {
					t.Error("a stream outlives its connection")
				}
				if got := far.CloseReason(); got != reason {
					t.Errorf("told %s, want %s", got, reason)
				}
				if _, err := far.AcceptStream(patient(t)); err == nil {
					t.Error("a stream comes on a closed connection")
				}
				if got := near.CloseReason(); got != link.ReasonNone {
					t.Errorf("the end that closed was told %s", got)
				}
				if _, err := s.Write([]byte("x")); err == nil {
					t.Error("writing on a closed connection works")
				}
				_ = far.Close(link.ReasonNone)
			}
		}
	})
}

// A reason arrives although the end that gives it has bytes that it did not read: its
// kernel resets the TCP connection then.
func TestCloseReasonWhileSending(t *testing.T) {
	over(t, func(t *testing.T, via Transport) {
		a, b := start(t, Config{}), start(t, Config{})
		for range 20 {
			near, far := connect(t, via, a, b)
			s, _ := stream(t, near, far)
			var sending sync.WaitGroup
			sending.Go(func() {
				junk := make([]byte, 1<<20)
				for {
					if _, err := s.Write(junk); err != nil {
						return
					}
				}
			})
			if err := far.Close(link.ReasonClone); err != nil {
				t.Fatal(err)
			}
			sending.Wait()
			if got := near.CloseReason(); got != link.ReasonClone {
				t.Errorf("told %s, want clone", got)
			}
			_ = near.Close(link.ReasonNone)
		}
	})
}

// Close tells everybody, and nothing is left (TestMain).
func TestCloseTellsPeers(t *testing.T) {
	over(t, func(t *testing.T, via Transport) {
		a, b := start(t, Config{}), start(t, Config{})
		near, _ := connect(t, via, a, b)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := near.AcceptStream(patient(t)); err == nil {
			t.Error("a stream comes from a closed underlay")
		}
		if got := near.CloseReason(); got != link.ReasonShutdown {
			t.Errorf("told %s, want shutdown", got)
		}
		if _, err := b.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
		if _, err := b.Dial(t.Context(), via, a.Bound()[0], a.id()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dial: %v", err)
		}
		if n := len(b.Sockets()); n != 0 {
			t.Errorf("%d sockets are left", n)
		}
	})
}

// Waiting for a stream ends with its context, and takes no stream with it.
func TestAcceptStreamEnds(t *testing.T) {
	over(t, func(t *testing.T, via Transport) {
		near, far := connect(t, via, start(t, Config{}), start(t, Config{}))
		for range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := far.AcceptStream(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want that it was cancelled", err)
			}
		}
		stream(t, near, far)
	})
}

func TestOff(t *testing.T) {
	for _, via := range both {
		a := start(t, Config{NoQUIC: via == QUIC, NoTCP: via == TCP})
		if _, err := a.Dial(t.Context(), via, a.Bound()[0], identity.ID{}); !errors.Is(err, ErrOff) {
			t.Errorf("%s: %v, want ErrOff", via, err)
		}
		if n := len(a.Sockets()); (n == 0) != (via == QUIC) {
			t.Errorf("without %s there are %d sockets", via, n)
		}
	}
}

// One port is drawn that is free on all addresses, over UDP and TCP.
func TestDrawnPort(t *testing.T) {
	listen := []netip.AddrPort{
		netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("127.0.0.2:0"), netip.MustParseAddrPort("[::1]:0"),
	}
	a, b := start(t, Config{}), start(t, Config{Listen: listen})
	for i, at := range b.Bound() {
		if at.Addr() != listen[i].Addr() || at.Port() != b.Bound()[0].Port() || at.Port() == 0 {
			t.Errorf("%s is bound for %s", at, listen[i])
		}
		for _, via := range both {
			c, err := a.Dial(patient(t), via, at, b.id())
			if err != nil {
				t.Fatal(err)
			}
			far, err := b.Accept(patient(t))
			if err != nil {
				t.Fatal(err)
			}
			if far.Local() != at {
				t.Errorf("dialled %s over %s, and %s was reached", at, via, far.Local())
			}
			_ = c.Close(link.ReasonNone)
		}
	}
}

func TestPortTaken(t *testing.T) {
	for _, other := range []Config{{NoQUIC: true}, {NoTCP: true}, {}} {
		a := start(t, other)
		if _, err := Open(Config{Key: testKey(t), Listen: a.Bound()}); !errors.Is(err, ErrPortTaken) {
			t.Errorf("%v, want ErrPortTaken", err)
		}
	}
}

// What this machine lacks is passed over while there is something else.
func TestMissingAddress(t *testing.T) {
	missing := netip.MustParseAddrPort("192.0.2.1:0")
	a := start(t, Config{Listen: append([]netip.AddrPort{missing}, loopback...)})
	if len(a.Bound()) != 1 || a.Bound()[0].Addr() != loopback[0].Addr() {
		t.Errorf("bound %v", a.Bound())
	}
	if _, err := Open(Config{Key: testKey(t), Listen: []netip.AddrPort{missing}}); err == nil {
		t.Error("listening on nothing at all works")
	}
}

// An address is a value from the parser to the kernel: what a zone says is not pasted
// into anything. The text below once made a node dial a service of its own machine
// (fault O5).
func TestZones(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a := start(t, Config{})
	for _, text := range []string{"[fe80::1%lo/ip6/::1/tcp/" + port + "]:4171", "[::1%lo]:" + port, "[fe80::1%lo]:" + port} {
		at, err := netip.ParseAddrPort(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, via := range both {
			if _, err := a.Dial(t.Context(), via, at, identity.ID{}); !errors.Is(err, ErrZone) {
				t.Errorf("%s over %s: %v, want ErrZone", text, via, err)
			}
		}
		if _, err := Open(Config{Key: testKey(t), Listen: []netip.AddrPort{at}}); !errors.Is(err, ErrZone) {
			t.Errorf("listen on %s: %v, want ErrZone", text, err)
		}
		if _, err := a.admit(TCP, at, a.Bound()[0]); !errors.Is(err, ErrZone) {
			t.Errorf("from %s: %v, want ErrZone", text, err)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	a := start(t, Config{})
	for _, text := range []string{"0.0.0.0:1", "[::]:1", "224.0.0.1:1", "127.0.0.1:0"} {
		for _, via := range both {
			var invalid net.InvalidAddrError
			if _, err := a.Dial(t.Context(), via, netip.MustParseAddrPort(text), identity.ID{}); !errors.As(err, &invalid) {
				t.Errorf("%s over %s: %v", text, via, err)
			}
		}
	}
}

// An address that is written as IPv6 but is IPv4 is dialled as what it is.
func TestMappedAddress(t *testing.T) {
	over(t, func(t *testing.T, via Transport) {
		a, b := start(t, Config{}), start(t, Config{})
		at := b.Bound()[0]
		c, err := a.Dial(patient(t), via, netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), at.Port()), b.id())
		if err != nil {
			t.Fatal(err)
		}
		if c.Remote() != at {
			t.Errorf("remote %s, want %s", c.Remote(), at)
		}
	})
}

// A socket that was opened for dialling alone is gone some time after its last
// connection (fault O12: closed ones were kept). What it counted stays.
func TestIdleSocketsGo(t *testing.T) {
	six := start(t, Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("[::1]:0")}})
	a := start(t, Config{bounds: bounds{idle: 10 * time.Millisecond}})
	own := a.Sockets()
	for range 3 {
		c, _ := connect(t, QUIC, a, six)
		if len(a.Sockets()) != 2 || c.Socket() == own[0] {
			t.Fatalf("%d sockets", len(a.Sockets()))
		}
		near, far := connect(t, QUIC, a, six)
		if near.Socket() != c.Socket() {
			t.Error("each dial has a socket of its own")
		}
		_ = c.Close(link.ReasonNone)
		stream(t, near, far) // who shares it is left alone
		_ = near.Close(link.ReasonNone)
		until(t, "the socket is gone", func() bool { return len(a.Sockets()) == 1 })
	}
	if !slices.Equal(a.Sockets(), own) {
		t.Error("another socket is left than the one that listens")
	}
}

// until waits for a condition that nothing announces.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for !cond() {
		select {
		case <-look.C:
		case <-deadline.C:
			t.Fatalf("after %s still not: %s", patience, what)
		}
	}
}
