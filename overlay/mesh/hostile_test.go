package mesh

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	p2p "github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kairos-io/kairos/overlay/admission"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/token"
	"github.com/kairos-io/kairos/overlay/underlay"
)

var transports = []underlay.Transport{underlay.QUIC, underlay.TCP}

// victim is a mesh that fails the test if it serves a stream.
func victim(t *testing.T, cfg Config) *Mesh {
	t.Helper()
	m := start(t, cfg)
	for _, name := range []string{"/echo/1", "/kairos/gossip/1", "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"} {
		m.Handle(name, func(from identity.ID, _ Stream) { t.Errorf("served %s to %s", name, from.Short()) })
	}
	return m
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

// door is the libp2p address of a mesh.
func door(t testing.TB, m *Mesh, via underlay.Transport) (p2p.ID, ma.Multiaddr) {
	t.Helper()
	at := m.under.Bound()[0]
	text := fmt.Sprintf("/ip4/%s/tcp/%d", at.Addr(), at.Port())
	if via == underlay.QUIC {
		text = fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", at.Addr(), at.Port())
	}
	addr, err := ma.NewMultiaddr(text)
	if err != nil {
		t.Fatal(err)
	}
	id := m.ID()
	key, err := crypto.UnmarshalEd25519PublicKey(id[:])
	if err != nil {
		t.Fatal(err)
	}
	pid, err := p2p.IDFromPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pid, addr
}

// knock opens a bare connection to a mesh, as whoever has no token could.
func knock(t testing.TB, from, to *Mesh, via underlay.Transport) *underlay.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := from.under.Dial(ctx, via, to.under.Bound()[0], to.ID())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// greeted accepts the admission stream and reads what the listener says.
func greeted(t testing.TB, c *underlay.Conn) (link.Stream, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := c.AcceptStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	msg := make([]byte, admission.HelloSize)
	if _, err := io.ReadFull(s, msg); err != nil {
		t.Fatal(err)
	}
	return s, msg
}

// hungUp waits until the other side has closed the connection.
func hungUp(t testing.TB, c *underlay.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if s, err := c.AcceptStream(ctx); err == nil {
		t.Errorf("the victim opened a stream to a stranger: %v", s)
	}
	if ctx.Err() != nil {
		t.Errorf("the victim did not hang up within %s", patience)
	}
	_ = c.Close(link.ReasonNone)
}

// An ordinary libp2p host is told no protocol, is served none, and is hung up on.
func TestStrangerSeesNothing(t *testing.T) {
	for _, via := range transports {
		t.Run(via.String(), func(t *testing.T) {
			m := victim(t, Config{Keys: testKeys(t), Timing: Timing{Admission: time.Second}})
			h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = h.Close() }()
			gone := make(chan struct{}, 16)
			h.Network().Notify(&network.NotifyBundle{DisconnectedF: func(network.Network, network.Conn) { gone <- struct{}{} }})
			pid, at := door(t, m, via)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			// Whether this fails depends on who is faster; what counts is what it learned.
			if err := h.Connect(ctx, p2p.AddrInfo{ID: pid, Addrs: []ma.Multiaddr{at}}); err == nil {
				if s, err := h.NewStream(ctx, pid, "/kairos/gossip/1", "/echo/1", "/ipfs/ping/1.0.0"); err == nil {
					t.Errorf("a stranger got the stream %s", s.Protocol())
				}
				<-gone
			}
			protocols, err := h.Peerstore().GetProtocols(pid)
			if err != nil || len(protocols) > 0 {
				t.Errorf("a stranger learned of %v (%v)", protocols, err)
			}
			if agent, err := h.Peerstore().Get(pid, "AgentVersion"); err == nil {
				t.Errorf("a stranger learned of the agent %v", agent)
			}
			// Over TCP it does not get as far as admission.
			until(t, "it is counted", func() bool {
				s := m.Stats().Admission
				return s.Left+s.RefusedTimeout > 0 || via == underlay.TCP
			})
			if n := m.Stats().Admission.RefusedProof; n != 0 {
				t.Errorf("somebody who proved nothing counts as %d other tokens", n)
			}
			if len(m.Peers()) != 0 {
				t.Error("a stranger is a peer")
			}
		})
	}
}

// Streams that a stranger opens before or instead of proving anything are not
// read, and silence ends at the deadline.
func TestSilentPeer(t *testing.T) {
	for _, via := range transports {
		t.Run(via.String(), func(t *testing.T) {
			m := victim(t, Config{Keys: testKeys(t), Timing: Timing{Admission: 200 * time.Millisecond}})
			stranger := start(t, Config{Keys: testKeys(t)})
			c := knock(t, stranger, m, via)
			greeted(t, c)
			s, err := c.OpenStream(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write(append([]byte{byte(len("/echo/1"))}, "/echo/1"...)); err != nil {
				t.Fatal(err)
			}
			hungUp(t, c)
			until(t, "the time-out is counted", func() bool { return m.Stats().Admission.RefusedTimeout == 1 })
		})
	}
}

func TestHostileProofs(t *testing.T) {
	keys := testKeys(t)
	for _, via := range transports {
		t.Run(via.String(), func(t *testing.T) {
			m := victim(t, Config{Keys: keys, Limits: admission.Limits{Failures: 1 << 20}})
			attacker := start(t, Config{Keys: testKeys(t)})
			right, wrong := keys.Doors, testKeys(t).Doors
			prove := func(doors token.Doors, hello []byte) []byte {
				side := admission.Side{Self: attacker.ID(), Peer: m.ID(), Nonce: admission.Nonce{7}, Doors: doors}
				proof, err := admission.NewDialler(side).Prove(hello)
				if err != nil {
					t.Fatal(err)
				}
				return proof
			}
			refused := func(what string, proof func(hello []byte) []byte) {
				t.Helper()
				count := func() uint64 { return m.Stats().Admission.RefusedProof + m.Stats().Admission.Left }
				before := count()
				c := knock(t, attacker, m, via)
				s, hello := greeted(t, c)
				if _, err := s.Write(proof(hello)); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				_ = s.CloseWrite() // fails when the victim was faster
				// The stream ends, or the connection does: either is no answer.
				if got, err := io.ReadAll(s); len(got) > 0 {
					t.Errorf("%s: answered with %x (%v)", what, got, err)
				}
				hungUp(t, c)
				until(t, what+" is counted", func() bool { return count() == before+1 })
			}

			var seen []byte
			c := knock(t, attacker, m, via)
			s, hello := greeted(t, c)
			seen = prove(right, hello) // somebody who once had the token
			if _, err := s.Write(seen); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, admission.AnswerSize)
			if _, err := io.ReadFull(s, answer); err != nil {
				t.Fatalf("the right proof was refused: %v", err)
			}
			_ = c.Close(link.ReasonNone)
			until(t, "the connection is gone", func() bool { return len(m.Peers()) == 0 })

			refused("wrong token", func(h []byte) []byte { return prove(wrong, h) })
			refused("replay", func([]byte) []byte { return bytes.Clone(seen) })
			refused("random bytes", func([]byte) []byte {
				junk := make([]byte, admission.ProofSize)
				if _, err := rand.Read(junk); err != nil {
					t.Fatal(err)
				}
				return junk
			})
			if n := m.Stats().Admission.RefusedProof; n != 3 {
				t.Errorf("%d of 3 wrong proofs are counted as such", n)
			}
			for _, cut := range []int{0, 1, 31, 32, 47, 48, 49, 500, admission.ProofSize - 17, admission.ProofSize - 1} {
				refused("truncated proof", func(h []byte) []byte { return prove(right, h)[:cut] })
			}
			if got := m.Stats().Admission.Admitted; got != 1 {
				t.Errorf("%d admitted, want 1", got)
			}
			if len(m.Peers()) != 0 {
				t.Error("an attacker is a peer")
			}
		})
	}
}

// With default limits an address that keeps failing is refused unread, while
// the node itself can still reach whom it wants.
func TestFailuresAreLimited(t *testing.T) {
	m := victim(t, Config{Keys: testKeys(t)})
	attacker := start(t, Config{Keys: testKeys(t)})
	for m.Stats().Admission.RefusedLimit == 0 {
		if comeIn(t, attacker, m) == nil {
			t.Fatal("admitted")
		}
	}
	if n := m.Stats().Admission.RefusedProof; n < 16 || n > 64 {
		t.Errorf("%d failures before the limit", n)
	}
}

// A thousand wrong tokens leave nothing behind.
func TestWrongTokensLeaveNothing(t *testing.T) {
	const tries, warmUp = 1000, 100
	m := victim(t, Config{Keys: testKeys(t), Limits: admission.Limits{Failures: 1 << 20}})
	attacker := start(t, Config{Keys: testKeys(t)})
	try := func(n int) {
		for i := range n {
			via := transports[i%len(transports)]
			c := knock(t, attacker, m, via)
			if _, err := attacker.gate.Admit(t.Context(), c, admission.Dialled); !errors.Is(err, admission.ErrRefused) {
				t.Fatalf("try %d over %s: %v, want ErrRefused", i, via, err)
			}
		}
		until(t, "everything is counted", func() bool { return m.Stats().Admission.RefusedProof >= uint64(n) })
	}
	try(warmUp)
	heap, routines := atRest(t)
	try(tries)
	heapAfter, routinesAfter := atRest(t)
	t.Logf("RESULT %d wrong tokens: heap %+d KiB, goroutines %+d", tries, (heapAfter-heap)/1024, routinesAfter-routines)
	if heapAfter-heap > 1<<20 {
		t.Errorf("heap grew from %d to %d bytes", heap, heapAfter)
	}
	if routinesAfter > routines+5 {
		t.Errorf("goroutines grew from %d to %d", routines, routinesAfter)
	}
	if s := m.Stats(); s.Admission.RefusedProof != tries+warmUp || s.Admission.Admitted != 0 || s.Peers != 0 || s.Members != 0 {
		t.Errorf("counted %+v", s)
	}
}

// atRest returns the heap in use and the number of goroutines once both have
// stopped falling: closed QUIC connections linger for a moment.
func atRest(t testing.TB) (heap int64, routines int) {
	t.Helper()
	var stats runtime.MemStats
	calm, before := 0, int64(-1)
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for calm < 5 {
		<-look.C
		runtime.GC()
		runtime.ReadMemStats(&stats)
		heap, routines = int64(stats.HeapAlloc), runtime.NumGoroutine()
		if before >= 0 && heap > before-32<<10 {
			calm++
		} else {
			calm = 0
		}
		before = heap
	}
	return heap, routines
}
