package admission

import (
	"bytes"
	"crypto/hmac"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/secret"
	"github.com/kairos-io/kairos/overlay/token"
)

var (
	alex = identity.ID{0xa}
	bert = identity.ID{0xb}
	carl = identity.ID{0xc}
)

func door(frame, join byte) token.Door {
	d := token.Door{Gen: frame, Find: token.Find{Frame: secret.NewKey([32]byte{frame})}}
	if join != 0 {
		d.Join = secret.NewKey([32]byte{1: join})
	}
	return d
}

func nonce(b byte) Nonce { return Nonce{0: b, nonceSize - 1: b} }

// side is self's part of an admission with peer.
func side(self, peer identity.ID, n byte, doors ...token.Door) Side {
	return Side{Self: self, Peer: peer, Nonce: nonce(n), Doors: doors, Terms: Terms{Run: Run{self[0]}}}
}

// call is alex dialling bert.
type call struct {
	hello, proof, answer []byte
	listener, dialler    Outcome
}

func exchanged(t testing.TB, listener, dialler Side) (c call) {
	t.Helper()
	l, d := NewListener(listener), NewDialler(dialler)
	var err error
	c.hello = l.Hello()
	if c.proof, err = d.Prove(c.hello); err != nil {
		t.Fatal(err)
	}
	if c.answer, c.listener, err = l.Verify(c.proof); err != nil {
		t.Fatal(err)
	}
	if c.dialler, err = d.Verify(c.answer); err != nil {
		t.Fatal(err)
	}
	return c
}

func usual(t testing.TB) call {
	t.Helper()
	return exchanged(t, side(bert, alex, 1, door(1, 1)), side(alex, bert, 2, door(1, 1)))
}

func TestBothEndsAgree(t *testing.T) {
	c := usual(t)
	if len(c.hello) != HelloSize || len(c.proof) != ProofSize || len(c.answer) != AnswerSize {
		t.Errorf("messages of %d, %d, %d bytes", len(c.hello), len(c.proof), len(c.answer))
	}
	if c.listener.Session != c.dialler.Session || c.listener.Session == (Session{}) {
		t.Error("the ends name the connection differently")
	}
	if !bytes.Equal(c.listener.PSK.Bytes(), c.dialler.PSK.Bytes()) || bytes.Contains(c.listener.PSK.Bytes(), c.listener.Session[:]) {
		t.Error("the ends have different keys, or the name gives it away")
	}
	if c.listener.Terms.Run != (Run{alex[0]}) || c.dialler.Terms.Run != (Run{bert[0]}) {
		t.Error("the ends do not know each other's run")
	}
	if c.listener.Standing != Member || c.dialler.Standing != Member {
		t.Errorf("standings %s and %s", c.listener.Standing, c.dialler.Standing)
	}
	other := exchanged(t, side(bert, alex, 3, door(1, 1)), side(alex, bert, 2, door(1, 1)))
	if bytes.Equal(other.listener.PSK.Bytes(), c.listener.PSK.Bytes()) || other.listener.Session == c.listener.Session {
		t.Error("two connections have one key or name")
	}
}

// The first half of a nonce named the run of a process once: the same bytes from one
// node over all transports. Now nothing in any message is the same twice.
func TestNothingIsConstant(t *testing.T) {
	a := usual(t)
	b := exchanged(t, side(bert, alex, 3, door(1, 1)), side(alex, bert, 4, door(1, 1)))
	for name, m := range map[string][2][]byte{"hello": {a.hello, b.hello}, "proof": {a.proof, b.proof}, "answer": {a.answer, b.answer}} {
		same := 0
		for i := range m[0] {
			if m[0][i] == m[1][i] {
				same++
			}
		}
		// The nonces of this test are zero but for two bytes, which counts for 30.
		if same > nonceSize-2+len(m[0])/32 {
			t.Errorf("%s: %d of %d bytes are the same on two connections", name, same, len(m[0]))
		}
		if bytes.Contains(m[0], make([]byte, 31)) {
			t.Errorf("%s: something is not sealed", name)
		}
	}
}

// The listener takes any of its doors, and the newest is the dialler's.
func TestDoors(t *testing.T) {
	for _, tc := range []struct {
		name              string
		listener, dialler []token.Door
		gen               byte // 0: refused
	}{
		{"one door", []token.Door{door(1, 1)}, []token.Door{door(1, 1)}, 1},
		{"the listener has a newer one too", []token.Door{door(2, 2), door(1, 1)}, []token.Door{door(1, 1)}, 1},
		{"both have both", []token.Door{door(2, 2), door(1, 1)}, []token.Door{door(2, 2), door(1, 1)}, 2},
		{"the fourth", []token.Door{door(5, 5), door(4, 4), door(3, 3), door(2, 2)}, []token.Door{door(2, 2)}, 2},
		{"no more than four are tried", []token.Door{door(5, 5), door(4, 4), door(3, 3), door(2, 2), door(1, 1)}, []token.Door{door(1, 1)}, 0},
		{"another door", []token.Door{door(2, 2)}, []token.Door{door(1, 1)}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, d := NewListener(side(bert, alex, 1, tc.listener...)), NewDialler(side(alex, bert, 2, tc.dialler...))
			proof, err := d.Prove(l.Hello())
			if err != nil {
				t.Fatal(err)
			}
			_, out, err := l.Verify(proof)
			if tc.gen == 0 {
				if !errors.Is(err, ErrProof) {
					t.Errorf("error %v, want ErrProof", err)
				}
				return
			}
			if err != nil || out.Gen != tc.gen {
				t.Errorf("door %d (%v), want %d", out.Gen, err, tc.gen)
			}
		})
	}
}

// Who has the find half of a door alone, from a stolen disk, speaks the language and is
// not a member: neither as dialler nor as listener, nor with what it hears from others.
func TestFindHalfIsNotEnough(t *testing.T) {
	whole, half, wrong := door(1, 1), door(1, 0), door(1, 9)
	refused := func(what string, listener, dialler Side) {
		t.Helper()
		l, d := NewListener(listener), NewDialler(dialler)
		proof, err := d.Prove(l.Hello())
		if err != nil {
			t.Fatal(err)
		}
		answer, _, err := l.Verify(proof)
		if err == nil {
			_, err = d.Verify(answer)
		}
		if !errors.Is(err, ErrProof) {
			t.Errorf("%s: error %v, want ErrProof", what, err)
		}
	}
	refused("a thief that dials", side(bert, alex, 1, whole), side(alex, bert, 2, half))
	refused("a thief that dials with a made-up join key", side(bert, alex, 1, whole), side(alex, bert, 2, wrong))
	refused("two that have half a door", side(bert, alex, 1, half), side(alex, bert, 2, half))

	// A thief that is dialled opens what is sent to it, and sends the join credential
	// that it finds there back.
	d := NewDialler(side(alex, carl, 2, whole))
	proof, err := d.Prove(NewListener(side(carl, alex, 1, half)).Hello())
	if err != nil {
		t.Fatal(err)
	}
	tr := transcript{version: Version, dialler: alex, listener: carl, nonceD: nonce(2), nonceL: nonce(1)}
	h1 := tr.start(proof[nonceSize : nonceSize+selectorSize])
	join := stolen(t, h1, half, proof[nonceSize+selectorSize:])
	if !hmac.Equal(join, mac(whole.Join, "join/"+roleDialler, h1[:])) {
		t.Fatal("the thief did not find the credential, so that this test proves nothing")
	}
	answer := sealWith(t, h1.after(proof[nonceSize+selectorSize:]), half, roleListener, join)
	if _, err := d.Verify(answer); !errors.Is(err, ErrProof) {
		t.Errorf("a thief that reflects the credential: %v, want ErrProof", err)
	}
	// The same credential in a call of its own to somebody else.
	tr = transcript{version: Version, dialler: carl, listener: bert, nonceD: nonce(2), nonceL: nonce(1)}
	selector := tr.selector(half.Find.Frame)
	relayed := append(append(append([]byte{}, tr.nonceD[:]...), selector...), sealWith(t, tr.start(selector), half, roleDialler, join)...)
	if _, _, err := NewListener(side(bert, carl, 1, whole)).Verify(relayed); !errors.Is(err, ErrProof) {
		t.Errorf("a thief that relays the credential: %v, want ErrProof", err)
	}
}

func TestListenerRefuses(t *testing.T) {
	c, d := usual(t), door(1, 1)
	for _, tc := range []struct {
		name string
		l    *Listener
		msg  []byte
	}{
		{"nothing", NewListener(side(bert, alex, 1, d)), nil},
		{"another token", NewListener(side(bert, alex, 1, door(2, 2))), c.proof},
		{"another join key", NewListener(side(bert, alex, 1, door(1, 2))), c.proof},
		{"a replay on another connection", NewListener(side(bert, alex, 3, d)), c.proof},
		{"a proof of somebody else", NewListener(side(bert, carl, 1, d)), c.proof},
		{"a proof meant for somebody else", NewListener(side(carl, alex, 1, d)), c.proof},
		{"the reverse direction", NewListener(side(alex, bert, 1, d)), c.proof},
		{"an answer in place of a proof", NewListener(side(bert, alex, 1, d)), append(c.proof[:nonceSize+selectorSize:nonceSize+selectorSize], c.answer...)},
		{"another version", NewListener(side(bert, alex, 1, d)), proofOf(t, 2, d)},
		{"random bytes", NewListener(side(bert, alex, 1, d)), bytes.Repeat([]byte{0x5a}, ProofSize)},
		{"a byte too many", NewListener(side(bert, alex, 1, d)), append(bytes.Clone(c.proof), 0)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if answer, out, err := tc.l.Verify(tc.msg); !errors.Is(err, ErrProof) || answer != nil || out.Standing != Stranger {
				t.Errorf("answer %x, %s, error %v; want ErrProof", answer, out.Standing, err)
			}
		})
	}
	for i := range c.proof {
		if _, _, err := NewListener(side(bert, alex, 1, d)).Verify(c.proof[:i]); !errors.Is(err, ErrProof) {
			t.Errorf("cut at byte %d: %v", i, err)
		}
		flipped := bytes.Clone(c.proof)
		flipped[i] ^= 1
		if _, _, err := NewListener(side(bert, alex, 1, d)).Verify(flipped); !errors.Is(err, ErrProof) {
			t.Errorf("bit flipped in byte %d: %v", i, err)
		}
	}
	if answer, _, err := NewListener(side(bert, alex, 1, d)).Verify(proofOf(t, Version, d)); err != nil || answer == nil {
		t.Errorf("the right proof: %v", err)
	}
}

func TestDiallerRefuses(t *testing.T) {
	c, door1 := usual(t), door(1, 1)
	ready := func() *Dialler {
		d := NewDialler(side(alex, bert, 2, door1))
		if _, err := d.Prove(c.hello); err != nil {
			t.Fatal(err)
		}
		return d
	}
	others := exchanged(t, side(bert, alex, 3, door1), side(alex, bert, 2, door1))
	for _, tc := range []struct {
		name string
		msg  []byte
	}{
		{"nothing", nil},
		{"its own proof sent back", c.proof[nonceSize+selectorSize:]},
		{"another connection's answer", others.answer},
		{"zeros", make([]byte, AnswerSize)},
		{"a byte less", c.answer[:AnswerSize-1]},
		{"a byte more", append(bytes.Clone(c.answer), 0)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := ready().Verify(tc.msg); !errors.Is(err, ErrProof) {
				t.Errorf("error %v, want ErrProof", err)
			}
		})
	}
	if _, err := ready().Verify(c.answer); err != nil {
		t.Errorf("the right answer: %v", err)
	}
	for i := range c.answer {
		flipped := bytes.Clone(c.answer)
		flipped[i] ^= 1
		if _, err := ready().Verify(flipped); !errors.Is(err, ErrProof) {
			t.Errorf("bit flipped in byte %d: %v", i, err)
		}
	}
	if _, err := NewDialler(side(alex, bert, 2, door1)).Verify(c.answer); !errors.Is(err, ErrProof) {
		t.Errorf("an answer to nothing: %v", err)
	}
	for _, h := range [][]byte{nil, c.hello[:HelloSize-1], append(bytes.Clone(c.hello), 0)} {
		if _, err := NewDialler(side(alex, bert, 2, door1)).Prove(h); !errors.Is(err, ErrProof) {
			t.Errorf("hello %x: %v", h, err)
		}
	}
}

// Terms that nobody may skip end an admission otherwise than a wrong proof: the token is
// the right one.
func TestCriticalTermsAreNotAWrongProof(t *testing.T) {
	d := door(1, 1)
	tr := transcript{version: Version, dialler: alex, listener: bert, nonceD: nonce(2), nonceL: nonce(1)}
	selector := tr.selector(d.Find.Frame)
	plain := appendField(appendField(nil, tagRun, make([]byte, runSize)), 0xff, []byte("mind this"))
	sealed := sealRaw(t, tr.start(selector), d, roleDialler, append(plain, make([]byte, TermsSize-len(plain))...))
	proof := append(append(append([]byte{}, tr.nonceD[:]...), selector...), sealed...)
	_, _, err := NewListener(side(bert, alex, 1, d)).Verify(proof)
	if !errors.Is(err, ErrTerms) || errors.Is(err, ErrProof) {
		t.Errorf("error %v, want ErrTerms", err)
	}
}

// Known answers, computed from the package comment by a program in another language: what
// travels and what is made of it must never change by accident.
func TestVectors(t *testing.T) {
	d := token.Door{Gen: 3, Find: token.Find{Frame: secret.NewKey([32]byte(bytes.Repeat([]byte{0x11}, 32)))}, Join: secret.NewKey([32]byte(bytes.Repeat([]byte{0x22}, 32)))}
	listener, dialler := side(bert, alex, 1, d), side(alex, bert, 2, d)
	dialler.Terms = Terms{Run: Run{0x33}, Features: 5, Digest: [32]byte{0x44}, Credentials: []Credential{{CredentialEnrolment, []byte("enrolled")}}}
	c := exchanged(t, listener, dialler)
	for _, v := range []struct{ name, got, want string }{
		{"proof, first 64 bytes", hex.EncodeToString(c.proof[:64]), "020000000000000000000000000000000000000000000000000000000000000271d29105598f9539c6dccd72f139597508c343f80f92e4686a03b5072a2de751"},
		{"proof, last 16 bytes", hex.EncodeToString(c.proof[ProofSize-16:]), "189d84812ebfa5b7d287b03771cdcd6a"},
		{"answer, first 16 bytes", hex.EncodeToString(c.answer[:16]), "dd9d0e190fff871b75d325ce13ee7033"},
		{"answer, last 16 bytes", hex.EncodeToString(c.answer[AnswerSize-16:]), "d604f2069502fa3d7291a97839f5a738"},
		{"session", hex.EncodeToString(c.dialler.Session[:]), "5f143d3e2779d49920d4a4395ce79795"},
		{"PSK", hex.EncodeToString(c.dialler.PSK.Bytes()), "1abfca814bbb8c1f8a528f55e2d1f1e84a3bb42881fb895e2ba18bb8895ba9b6"},
	} {
		if v.got != v.want {
			t.Errorf("%s: %s, want %s", v.name, v.got, v.want)
		}
	}
}

func TestStandings(t *testing.T) {
	for standing, may := range map[Standing]bool{Stranger: false, Guest: false, Member: true, 99: false} {
		if standing.May("/kairos/gossip/1") != may {
			t.Errorf("%s (%d) may: %v, want %v", standing, standing, !may, may)
		}
	}
	if Member.May("") {
		t.Error("a protocol without a name")
	}
}

func TestSecretDoesNotPrint(t *testing.T) {
	key := secret.NewKey([32]byte(bytes.Repeat([]byte{0x41}, 32)))
	d := token.Doors{{Find: token.Find{Frame: key}, Join: key}}
	s := side(alex, bert, 1, d...)
	for _, text := range []string{
		fmt.Sprintf("%+v", NewGate(Config{Doors: d})), fmt.Sprintf("%+v", Config{Doors: d}), fmt.Sprintf("%#v", *NewListener(s)),
		fmt.Sprintf("%+v", Outcome{PSK: key}), fmt.Sprintf("%+v", Admission{PSK: key}),
	} {
		if strings.Contains(text, "4141") || strings.Contains(text, "65, 65") || strings.Contains(text, "0x41, 0x41") || strings.Contains(text, "65 65") {
			t.Errorf("the key shows: %s", text)
		}
	}
}

// FuzzListener checks that nothing but the right proof is ever answered.
func FuzzListener(f *testing.F) {
	good := usual(f).proof
	f.Add(good)
	f.Add([]byte{})
	f.Add(make([]byte, ProofSize))
	f.Fuzz(func(t *testing.T, msg []byte) {
		_, _, err := NewListener(side(bert, alex, 1, door(1, 1))).Verify(msg)
		if (err == nil) != bytes.Equal(msg, good) {
			t.Fatalf("proof %x: %v", msg, err)
		}
	})
}

// FuzzDialler checks that a dialler survives any hello and answer.
func FuzzDialler(f *testing.F) {
	f.Add(NewListener(side(bert, alex, 1, door(1, 1))).Hello(), make([]byte, AnswerSize))
	f.Add([]byte{Version}, []byte{})
	f.Fuzz(func(t *testing.T, hello, answer []byte) {
		d := NewDialler(side(alex, bert, 2, door(1, 1)))
		if proof, err := d.Prove(hello); err == nil && len(proof) != ProofSize {
			t.Fatalf("proof of %d bytes", len(proof))
		}
		if _, err := d.Verify(answer); err == nil {
			t.Fatal("an answer was guessed")
		}
	})
}

// BenchmarkListener is what one admission costs the accepting end: a stranger's wrong
// proof at four doors, and a member's right one.
func BenchmarkListener(b *testing.B) {
	c := usual(b)
	for name, l := range map[string]*Listener{
		"wrong": NewListener(side(bert, alex, 1, door(5, 5), door(4, 4), door(3, 3), door(2, 2))),
		"right": NewListener(side(bert, alex, 1, door(1, 1))),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, _, _ = l.Verify(c.proof)
			}
		})
	}
}
