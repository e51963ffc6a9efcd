package mesh

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests; none of them waits that long.
const patience = time.Minute

var loopback = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}

func testKey(t testing.TB) identity.Key {
	t.Helper()
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// texts is how a person would name addresses.
func texts(addrs []netip.AddrPort) (out []string) {
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

func testKeys(t testing.TB) token.Keys {
	t.Helper()
	tok, err := token.Generate(rand.Reader, 3)
	if err != nil {
		t.Fatal(err)
	}
	return tok.Keys()
}

// start runs a mesh on loopback until the end of the test.
func start(t testing.TB, cfg Config) *Mesh {
	t.Helper()
	cfg.Loopback = true
	return startAs(t, cfg)
}

// startAs is start for a mesh that does as it is told about loopback.
func startAs(t testing.TB, cfg Config) *Mesh {
	t.Helper()
	if cfg.Key.IsZero() {
		cfg.Key = testKey(t)
	}
	if cfg.Listen == nil {
		cfg.Listen = loopback
	}
	if testing.Verbose() {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	m, err := New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// await reads events until the wanted one comes.
func await(t testing.TB, events <-chan Event, kind EventKind, peer identity.ID) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("events ended before %s of %s", kind, peer.Short())
			}
			if e.Kind == kind && e.Peer == peer {
				return
			}
		case <-timeout:
			t.Fatalf("no %s of %s within %s", kind, peer.Short(), patience)
		}
	}
}

// pair connects two meshes and returns them with their events past PeerUp.
func pair(t testing.TB, change func(a, b *Config)) (a, b *Mesh, ea, eb <-chan Event) {
	t.Helper()
	keys := testKeys(t)
	ca, cb := Config{Keys: keys}, Config{Keys: keys}
	if change != nil {
		change(&ca, &cb)
	}
	a, b = start(t, ca), start(t, cb)
	ea, cancelA := a.Events()
	eb, cancelB := b.Events()
	t.Cleanup(cancelA)
	t.Cleanup(cancelB)
	a.Learn(b.ID(), b.Underlay())
	await(t, ea, PeerUp, b.ID())
	await(t, eb, PeerUp, a.ID())
	return a, b, ea, eb
}

func TestStreamsBothWays(t *testing.T) {
	for _, tc := range []struct {
		name, transport string
		change          func(a, b *Config)
	}{
		{"quic", "quic", nil},
		{"tcp", "tcp", func(a, _ *Config) { a.NoQUIC = true }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, b, _, _ := pair(t, tc.change)
			if got := a.Peers()[0].Transport; got != tc.transport {
				t.Errorf("connected over %s, want %s", got, tc.transport)
			}
			for _, dir := range []struct{ from, to *Mesh }{{a, b}, {b, a}} {
				dir.to.Handle("/echo/1", func(id identity.ID, s Stream) {
					defer func() { _ = s.Close() }()
					if id != dir.from.ID() {
						t.Errorf("stream from %s, want %s", id.Short(), dir.from.ID().Short())
					}
					if _, err := io.Copy(s, s); err != nil {
						t.Error(err)
					}
				})
				echo(t, dir.from, dir.to.ID())
			}
		})
	}
}

func echo(t testing.TB, m *Mesh, to identity.ID) {
	t.Helper()
	s, err := m.Open(t.Context(), to, "/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("hello ", 1000)
	go func() {
		if _, err := io.WriteString(s, want); err != nil {
			t.Error(err)
		}
		if err := s.CloseWrite(); err != nil {
			t.Error(err)
		}
	}()
	got, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("echo of %d bytes, want %d", len(got), len(want))
	}
}

// soon fails the test unless something takes no longer than a bound. On a machine that
// is busy with other things it may be tried again.
func soon(t testing.TB, what string, bound time.Duration, measure func() time.Duration) {
	t.Helper()
	for range 6 {
		took := measure()
		t.Logf("RESULT %s: %s", what, took)
		if took <= bound {
			return
		}
	}
	t.Errorf("%s takes longer than %s", what, bound)
}

func TestConnectTime(t *testing.T) {
	soon(t, "two fresh nodes are connected", time.Second, func() time.Duration {
		begin := time.Now()
		pair(t, nil)
		return time.Since(begin)
	})
}

func TestWrongToken(t *testing.T) {
	a := start(t, Config{Keys: testKeys(t)})
	b := start(t, Config{Keys: testKeys(t), Peers: texts(a.Underlay())})
	deadline := time.After(patience)
	for a.Stats().Admission.RefusedProof == 0 || b.Stats().Admission.RefusedByPeer == 0 {
		select {
		case <-deadline:
			t.Fatalf("refusals were not counted: %+v, %+v", a.Stats().Admission, b.Stats().Admission)
		case <-time.After(5 * time.Millisecond):
		}
	}
	if len(a.Peers())+len(b.Peers()) != 0 {
		t.Error("a wrong token was admitted")
	}
}
