package admission

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/secret"
)

// Specification constants: both ends must agree on them.
const (
	// Version is the first byte a listener says. Another version is refused.
	Version = 1

	runSize   = 16
	nonceSize = 32
	macSize   = sha256.Size
	// HelloSize, ProofSize and AnswerSize are the exact lengths of the three messages in bytes.
	HelloSize  = 1 + nonceSize
	ProofSize  = nonceSize + macSize
	AnswerSize = macSize

	macContext     = "kairos/admission/1\x00"
	sessionContext = "kairos/admission/session/1\x00"
)

// The roles of a connection, as the MAC names them.
const (
	roleDialler  byte = 'd'
	roleListener byte = 'l'
)

// ErrProof is returned, wrapped, when what the other side said does not prove
// that it holds this network's token.
var ErrProof = errors.New("the other side did not prove this network's token")

// Run names one run of a process: random, public, and new at each start.
type Run [runSize]byte

// Nonce is what one side contributes to an admission: the run it belongs to
// and as many fresh random bytes.
type Nonce [nonceSize]byte

// Run returns the run that the nonce was made in.
func (n Nonce) Run() Run { return Run(n[:runSize]) }

// Session is a public name of one admitted connection on which both ends agree.
type Session [16]byte

// transcript is all that a proof is bound to.
type transcript struct {
	dialler, listener identity.ID
	nonceD, nonceL    Nonce
}

func (t transcript) mac(key secret.Key, context string, role byte) [macSize]byte {
	h := hmac.New(sha256.New, key.Bytes())
	h.Write([]byte(context))
	h.Write([]byte{role})
	h.Write(t.dialler[:])
	h.Write(t.listener[:])
	h.Write(t.nonceD[:])
	h.Write(t.nonceL[:])
	return [macSize]byte(h.Sum(nil))
}

func (t transcript) session(key secret.Key) Session {
	sum := t.mac(key, sessionContext, 0)
	return Session(sum[:len(Session{})])
}

// Listener is the accepting end of one admission: a value without I/O, used
// once, by one goroutine. After an error it is dead and the connection must
// be closed.
type Listener struct {
	key secret.Key
	t   transcript
}

// NewListener starts an admission of peer by self. The nonce must be fresh.
func NewListener(key secret.Key, self, peer identity.ID, nonce Nonce) *Listener {
	return &Listener{key: key, t: transcript{dialler: peer, listener: self, nonceL: nonce}}
}

// Hello returns the first message.
func (l *Listener) Hello() []byte {
	return append([]byte{Version}, l.t.nonceL[:]...)
}

// Verify checks the dialler's proof and returns the answer that admits it, or
// an error that wraps ErrProof.
func (l *Listener) Verify(proof []byte) (answer []byte, err error) {
	if len(proof) != ProofSize {
		return nil, fmt.Errorf("read proof: %d bytes instead of %d: %w", len(proof), ProofSize, ErrProof)
	}
	l.t.nonceD = Nonce(proof[:nonceSize])
	want := l.t.mac(l.key, macContext, roleDialler)
	if !hmac.Equal(proof[nonceSize:], want[:]) {
		return nil, fmt.Errorf("check proof: %w", ErrProof)
	}
	mac := l.t.mac(l.key, macContext, roleListener)
	return mac[:], nil
}

// Session names the connection; it is meaningful after Verify succeeded.
func (l *Listener) Session() Session { return l.t.session(l.key) }

// PeerRun returns the dialler's run; it is meaningful after Verify succeeded.
func (l *Listener) PeerRun() Run { return l.t.nonceD.Run() }

// Dialler is the dialling end of one admission: a value without I/O, used
// once, by one goroutine. After an error it is dead and the connection must
// be closed.
type Dialler struct {
	key secret.Key
	t   transcript
}

// NewDialler starts an admission of self at peer. The nonce must be fresh.
func NewDialler(key secret.Key, self, peer identity.ID, nonce Nonce) *Dialler {
	return &Dialler{key: key, t: transcript{dialler: self, listener: peer, nonceD: nonce}}
}

// Prove reads the listener's hello and returns the proof to send.
func (d *Dialler) Prove(hello []byte) (proof []byte, err error) {
	if len(hello) != HelloSize {
		return nil, fmt.Errorf("read hello: %d bytes instead of %d: %w", len(hello), HelloSize, ErrProof)
	}
	if hello[0] != Version {
		return nil, fmt.Errorf("read hello: admission version %d, this is %d: %w", hello[0], Version, ErrProof)
	}
	d.t.nonceL = Nonce(hello[1:])
	mac := d.t.mac(d.key, macContext, roleDialler)
	return append(d.t.nonceD[:], mac[:]...), nil
}

// Verify checks the listener's answer; the error wraps ErrProof.
func (d *Dialler) Verify(answer []byte) error {
	want := d.t.mac(d.key, macContext, roleListener)
	if !hmac.Equal(answer, want[:]) {
		return fmt.Errorf("check answer: %w", ErrProof)
	}
	return nil
}

// Session names the connection; it is meaningful after Verify succeeded.
func (d *Dialler) Session() Session { return d.t.session(d.key) }

// PeerRun returns the listener's run; it is meaningful after Prove succeeded.
func (d *Dialler) PeerRun() Run { return d.t.nonceL.Run() }
