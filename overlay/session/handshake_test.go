package session

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/secret"
)

// chacha is randomness that a test can have twice.
func chacha(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

var (
	alpha, beta = identity.ID{1}, identity.ID{2}
	psk         = secret.NewKey([32]byte{7})
)

// parties are both ends of a handshake.
func parties(suites Suites) (a, b Party) {
	return Party{Self: alpha, Peer: beta, PSK: psk, Suites: suites, Index: 0xa1a2a3a4, Rand: chacha(1)},
		Party{Self: beta, Peer: alpha, PSK: psk, Suites: suites, Index: 0xb1b2b3b4, Rand: chacha(2)}
}

// agree runs a handshake.
func agree(t testing.TB, a, b Party) (initiator, responder *Keys) {
	t.Helper()
	i, first, err := Initiate(a)
	if err != nil {
		t.Fatal(err)
	}
	responder, second, err := Respond(b, first)
	if err != nil {
		t.Fatal(err)
	}
	if initiator, err = i.Finish(second); err != nil {
		t.Fatal(err)
	}
	return initiator, responder
}

func seal(t testing.TB, k *Keys, payload string) []byte {
	t.Helper()
	packet, err := k.Seal(nil, []byte(payload), 0)
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

func opens(k *Keys, packet []byte, payload string) error {
	got, err := k.Open(nil, packet)
	if err == nil && string(got) != payload {
		err = fmt.Errorf("got %q, want %q", got, payload)
	}
	return err
}

func TestBothDirections(t *testing.T) {
	for _, suites := range []Suites{AES256GCM, ChaCha20Poly1305} {
		t.Run(suites.String(), func(t *testing.T) {
			a, b := agree2(t, suites)
			for _, payload := range []string{"", "x", strings.Repeat("packet ", 200)} {
				for _, way := range [][2]*Keys{{a, b}, {b, a}} {
					packet := seal(t, way[0], payload)
					if len(packet) != len(payload)+Overhead {
						t.Errorf("%d bytes for %d", len(packet), len(payload))
					}
					if index, ok := Index(packet); !ok || index != way[1].Index() {
						t.Errorf("marked %08x, want %08x", index, way[1].Index())
					}
					if err := opens(way[1], packet, payload); err != nil {
						t.Error(err)
					}
					if err := opens(way[0], packet, payload); !errors.Is(err, ErrPacket) {
						t.Errorf("sent back to its sender: %v", err)
					}
				}
			}
		})
	}
}

func agree2(t testing.TB, suites Suites) (a, b *Keys) {
	t.Helper()
	pa, pb := parties(suites)
	return agree(t, pa, pb)
}

func TestSuiteThatBothDoWell(t *testing.T) {
	tests := []struct {
		here, there Suites
		want        Suites // 0: none
	}{
		{Supported(true), Supported(true), AES256GCM},
		{Supported(true), Supported(false), ChaCha20Poly1305},
		{Supported(false), Supported(true), ChaCha20Poly1305},
		{AES256GCM, ChaCha20Poly1305, 0},
		{Supported(true), 0x80, 0},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%v and %v", tt.here, tt.there), func(t *testing.T) {
			a, b := parties(tt.here)
			b.Suites = tt.there
			_, first, err := Initiate(a)
			if err != nil {
				t.Fatal(err)
			}
			keys, _, err := Respond(b, first)
			if tt.want == 0 {
				if err == nil {
					t.Errorf("they use %v", keys.Suite())
				}
				return
			}
			if err != nil || keys.Suite() != tt.want {
				t.Errorf("got %v and %v, want %v", keys, err, tt.want)
			}
		})
	}
}

// Whoever has another token, is somebody else, or is spoken to by somebody else
// than they think, gets no keys.
func TestStrangersGetNoKeys(t *testing.T) {
	tests := map[string]func(a, b *Party){
		"another network":                 func(a, _ *Party) { a.PSK = secret.NewKey([32]byte{8}) },
		"an initiator that is not beta":   func(a, b *Party) { b.Peer = identity.ID{9} },
		"a responder that is not alpha":   func(a, b *Party) { a.Peer = identity.ID{9} },
		"a message that is reflected":     func(a, b *Party) { b.Self, b.Peer = a.Self, a.Peer },
		"an initiator with other members": func(a, _ *Party) { a.Self, a.Peer = beta, alpha },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			a, b := parties(AES256GCM)
			change(&a, &b)
			_, first, err := Initiate(a)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := Respond(b, first); !errors.Is(err, ErrHandshake) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A message with any bit changed, or of another length, is refused by either end.
func TestDamagedHandshake(t *testing.T) {
	damage := func(t *testing.T, message []byte, take func([]byte) error) {
		t.Helper()
		for i := range message {
			bad := bytes.Clone(message)
			bad[i] ^= 1
			if err := take(bad); !errors.Is(err, ErrHandshake) {
				t.Errorf("byte %d: %v", i, err)
			}
		}
		for _, bad := range [][]byte{nil, message[:len(message)-1], append(bytes.Clone(message), 0)} {
			if err := take(bad); !errors.Is(err, ErrHandshake) {
				t.Errorf("%d bytes: %v", len(bad), err)
			}
		}
	}
	a, b := parties(AES256GCM)
	_, first, err := Initiate(a)
	if err != nil {
		t.Fatal(err)
	}
	damage(t, first, func(m []byte) error { _, _, err := Respond(b, m); return err })
	damage(t, second(t), func(m []byte) error {
		a, _ := parties(AES256GCM)
		i, _, err := Initiate(a)
		if err != nil {
			t.Fatal(err)
		}
		_, err = i.Finish(m)
		return err
	})
}

// second is the answer to the first message of parties.
func second(t *testing.T) []byte {
	t.Helper()
	a, b := parties(AES256GCM)
	_, first, err := Initiate(a)
	if err != nil {
		t.Fatal(err)
	}
	_, answer, err := Respond(b, first)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// An answer that names no suite, several, or one that was not offered.
func TestAnswerOfAnotherSuite(t *testing.T) {
	for _, suites := range []Suites{0, ChaCha20Poly1305, AES256GCM | ChaCha20Poly1305, 0x80} {
		if keys, err := newKeys(suites, direction{}, direction{}); err == nil && suites != ChaCha20Poly1305 {
			t.Errorf("%v: %v", suites, keys)
		}
	}
}

// What is on the wire does not change by accident: testdata/vectors.txt.
func TestVectors(t *testing.T) {
	var got strings.Builder
	for _, suites := range []Suites{AES256GCM, ChaCha20Poly1305} {
		a, b := parties(suites)
		i, first, err := Initiate(a)
		if err != nil {
			t.Fatal(err)
		}
		responder, answer, err := Respond(b, first)
		if err != nil {
			t.Fatal(err)
		}
		initiator, err := i.Finish(answer)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%v\n", suites)
		for _, line := range []struct {
			name  string
			bytes []byte
		}{{"first", first}, {"answer", answer}, {"a to b", seal(t, initiator, "hello")}, {"a to b", seal(t, initiator, "again")}, {"b to a", seal(t, responder, "hello")}} {
			fmt.Fprintf(&got, "%s: %s\n", line.name, hex.EncodeToString(line.bytes))
		}
	}
	const file = "testdata/vectors.txt"
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("%s has\n%swant\n%s", file, got.String(), want)
	}
}
