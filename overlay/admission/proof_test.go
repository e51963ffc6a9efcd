package admission

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/secret"
)

var (
	keyA = secret.NewKey([32]byte{1})
	keyB = secret.NewKey([32]byte{2})
	alex = identity.ID{0xa}
	bert = identity.ID{0xb}
	carl = identity.ID{0xc}
)

func nonce(b byte) Nonce { return Nonce{0: b, nonceSize - 1: b} }

// exchanged runs a good exchange and returns its messages.
func exchanged(t *testing.T) (hello, proof, answer []byte) {
	t.Helper()
	l, d := NewListener(keyA, bert, alex, nonce(1)), NewDialler(keyA, alex, bert, nonce(2))
	hello = l.Hello()
	proof, err := d.Prove(hello)
	if err != nil {
		t.Fatal(err)
	}
	if answer, err = l.Verify(proof); err != nil {
		t.Fatal(err)
	}
	if err := d.Verify(answer); err != nil {
		t.Fatal(err)
	}
	if l.Session() != d.Session() {
		t.Error("the ends name the connection differently")
	}
	if l.PeerRun() != nonce(2).Run() || d.PeerRun() != nonce(1).Run() {
		t.Error("the ends do not know each other's run")
	}
	return hello, proof, answer
}

func TestExchangeSizes(t *testing.T) {
	hello, proof, answer := exchanged(t)
	if len(hello) != HelloSize || len(proof) != ProofSize || len(answer) != AnswerSize {
		t.Errorf("messages of %d, %d, %d bytes", len(hello), len(proof), len(answer))
	}
}

func TestListenerRefuses(t *testing.T) {
	hello, proof, _ := exchanged(t)
	for _, tc := range []struct {
		name string
		l    *Listener
		msg  []byte
	}{
		{"nothing", NewListener(keyA, bert, alex, nonce(1)), nil},
		{"another token", NewListener(keyB, bert, alex, nonce(1)), proof},
		{"a replay on another connection", NewListener(keyA, bert, alex, nonce(3)), proof},
		{"a proof of somebody else", NewListener(keyA, bert, carl, nonce(1)), proof},
		{"a proof meant for somebody else", NewListener(keyA, carl, alex, nonce(1)), proof},
		{"the reverse direction", NewListener(keyA, alex, bert, nonce(1)), proof},
		{"the hello itself", NewListener(keyA, bert, alex, nonce(1)), append(hello, hello...)[:ProofSize]},
		{"a byte too many", NewListener(keyA, bert, alex, nonce(1)), append(bytes.Clone(proof), 0)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if answer, err := tc.l.Verify(tc.msg); !errors.Is(err, ErrProof) || answer != nil {
				t.Errorf("answer %x, error %v; want ErrProof", answer, err)
			}
		})
	}
	for i := range proof {
		if _, err := NewListener(keyA, bert, alex, nonce(1)).Verify(proof[:i]); !errors.Is(err, ErrProof) {
			t.Errorf("cut at byte %d: %v", i, err)
		}
		flipped := bytes.Clone(proof)
		flipped[i] ^= 1
		if _, err := NewListener(keyA, bert, alex, nonce(1)).Verify(flipped); !errors.Is(err, ErrProof) {
			t.Errorf("bit flipped in byte %d: %v", i, err)
		}
	}
}

func TestDiallerRefuses(t *testing.T) {
	hello, proof, answer := exchanged(t)
	ready := func() *Dialler {
		d := NewDialler(keyA, alex, bert, nonce(2))
		if _, err := d.Prove(hello); err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, tc := range []struct {
		name string
		msg  []byte
	}{
		{"nothing", nil},
		{"its own proof sent back", proof[nonceSize:]},
		{"zeros", make([]byte, AnswerSize)},
		{"a byte less", answer[:AnswerSize-1]},
		{"a byte more", append(bytes.Clone(answer), 0)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := ready().Verify(tc.msg); !errors.Is(err, ErrProof) {
				t.Errorf("error %v, want ErrProof", err)
			}
		})
	}
	if err := ready().Verify(answer); err != nil {
		t.Errorf("the right answer: %v", err)
	}
	other := bytes.Clone(hello)
	other[0]++
	for _, h := range [][]byte{nil, hello[:HelloSize-1], other} {
		if _, err := NewDialler(keyA, alex, bert, nonce(2)).Prove(h); !errors.Is(err, ErrProof) {
			t.Errorf("hello %x: %v", h, err)
		}
	}
}

func TestSecretDoesNotPrint(t *testing.T) {
	key := secret.NewKey([32]byte(bytes.Repeat([]byte{0x41}, 32)))
	g := NewGate(Config{Key: key})
	for _, s := range []string{
		fmt.Sprintf("%+v", g), fmt.Sprintf("%+v", Config{Key: key}), fmt.Sprintf("%#v", *NewListener(key, alex, bert, nonce(1))),
	} {
		if strings.Contains(s, "4141") || strings.Contains(s, "65, 65") || strings.Contains(s, "0x41, 0x41") || strings.Contains(s, "65 65") {
			t.Errorf("the key shows: %s", s)
		}
	}
}

// FuzzListener checks that nothing but the right proof is ever answered.
func FuzzListener(f *testing.F) {
	l, d := NewListener(keyA, bert, alex, nonce(1)), NewDialler(keyA, alex, bert, nonce(2))
	good, err := d.Prove(l.Hello())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{})
	f.Add(make([]byte, ProofSize))
	f.Fuzz(func(t *testing.T, msg []byte) {
		_, err := NewListener(keyA, bert, alex, nonce(1)).Verify(msg)
		if (err == nil) != bytes.Equal(msg, good) {
			t.Fatalf("proof %x: %v", msg, err)
		}
	})
}

// FuzzDialler checks that a dialler survives any hello and answer.
func FuzzDialler(f *testing.F) {
	f.Add(NewListener(keyA, bert, alex, nonce(1)).Hello(), make([]byte, AnswerSize))
	f.Add([]byte{Version}, []byte{})
	f.Fuzz(func(t *testing.T, hello, answer []byte) {
		d := NewDialler(keyA, alex, bert, nonce(2))
		if proof, err := d.Prove(hello); err == nil && len(proof) != ProofSize {
			t.Fatalf("proof of %d bytes", len(proof))
		}
		if d.Verify(answer) == nil {
			t.Fatal("an answer was guessed")
		}
	})
}
