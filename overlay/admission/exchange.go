package admission

import (
	"crypto/hmac"
	"fmt"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/token"
)

// Side is what one end brings to an admission.
type Side struct {
	Self, Peer identity.ID // as TLS proved them
	Nonce      Nonce       // fresh
	Doors      token.Doors // the newest first
	Terms      Terms       // of Self
}

// Listener is the accepting end of one admission: a value without I/O, used
// once, by one goroutine. After an error it is dead and the connection must
// be closed.
type Listener struct {
	side Side
}

// NewListener starts an admission by the end that accepted the connection.
func NewListener(side Side) *Listener { return &Listener{side} }

// Hello returns the first message.
func (l *Listener) Hello() []byte { return append([]byte{}, l.side.Nonce[:]...) }

// Verify checks the dialler's proof and returns the answer that admits it with what was
// proven, or an error that wraps ErrProof or ErrTerms.
func (l *Listener) Verify(proof []byte) (answer []byte, out Outcome, err error) {
	if len(proof) != ProofSize {
		return nil, Outcome{}, fmt.Errorf("read proof: %d bytes instead of %d: %w", len(proof), ProofSize, ErrProof)
	}
	nonce, selector, sealed := Nonce(proof[:nonceSize]), proof[nonceSize:nonceSize+selectorSize], proof[nonceSize+selectorSize:]
	t, door, ok := l.find(nonce, selector)
	if !ok {
		return nil, Outcome{}, fmt.Errorf("find door: %w", ErrProof)
	}
	h1 := t.start(selector)
	terms, err := h1.open(door, roleDialler, sealed)
	if err != nil {
		return nil, Outcome{}, fmt.Errorf("check proof: %w", err)
	}
	h2 := h1.after(sealed)
	if answer, err = h2.seal(door, roleListener, l.side.Terms); err != nil {
		return nil, Outcome{}, err
	}
	if out, err = h2.after(answer).outcome(door, terms); err != nil {
		return nil, Outcome{}, err
	}
	return answer, out, nil
}

// find tries every version at every door, and all of them each time.
func (l *Listener) find(nonce Nonce, selector []byte) (found transcript, door token.Door, ok bool) {
	for _, version := range listened {
		t := transcript{
			version: version, dialler: l.side.Peer, listener: l.side.Self, nonceD: nonce, nonceL: l.side.Nonce,
		}
		for _, d := range l.side.Doors[:min(len(l.side.Doors), maxDoors)] {
			if hmac.Equal(selector, t.selector(d.Find.Frame)) {
				found, door, ok = t, d, true
			}
		}
	}
	return found, door, ok
}

// Dialler is the dialling end of one admission: a value without I/O, used
// once, by one goroutine. After an error it is dead and the connection must
// be closed.
type Dialler struct {
	side Side
	sent state // h2; the zero value before Prove
}

// NewDialler starts an admission by the end that opened the connection. It proves the
// first of the doors; there must be one.
func NewDialler(side Side) *Dialler { return &Dialler{side: side} }

// Prove reads the listener's hello and returns the proof to send. The error wraps
// ErrProof when the hello is none.
func (d *Dialler) Prove(hello []byte) (proof []byte, err error) {
	if len(hello) != HelloSize {
		return nil, fmt.Errorf("read hello: %d bytes instead of %d: %w", len(hello), HelloSize, ErrProof)
	}
	t := transcript{
		version: Version, dialler: d.side.Self, listener: d.side.Peer, nonceD: d.side.Nonce, nonceL: Nonce(hello),
	}
	door := d.side.Doors[0]
	selector := t.selector(door.Find.Frame)
	h1 := t.start(selector)
	sealed, err := h1.seal(door, roleDialler, d.side.Terms)
	if err != nil {
		return nil, err
	}
	d.sent = h1.after(sealed)
	proof = append(proof, d.side.Nonce[:]...)
	proof = append(proof, selector...)
	return append(proof, sealed...), nil
}

// Verify checks the listener's answer and returns what was proven. The error wraps
// ErrProof or ErrTerms.
func (d *Dialler) Verify(answer []byte) (Outcome, error) {
	if d.sent == (state{}) {
		return Outcome{}, fmt.Errorf("check answer: nothing was asked: %w", ErrProof)
	}
	terms, err := d.sent.open(d.side.Doors[0], roleListener, answer)
	if err != nil {
		return Outcome{}, fmt.Errorf("check answer: %w", err)
	}
	return d.sent.after(answer).outcome(d.side.Doors[0], terms)
}
