package admission

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/secret"
	"github.com/kairos-io/kairos/overlay/token"
)

// Specification constants: both ends must agree on them. The lengths are those of every
// version, because a listener reads a message before it knows which version it is.
const (
	// Version is what a dialler speaks.
	Version = 1

	nonceSize    = 32
	selectorSize = 16
	tagSize      = chacha20poly1305.Overhead
	// HelloSize, ProofSize and AnswerSize are the exact lengths of the three messages in bytes.
	HelloSize  = nonceSize
	ProofSize  = nonceSize + selectorSize + TermsSize + tagSize
	AnswerSize = TermsSize + tagSize

	domain = "kairos/2/admission"
)

// maxDoors bounds the doors that a listener tries.
const maxDoors = 4

// listened are the versions that a listener understands, at most two.
var listened = []byte{Version}

// The roles of a connection, as keys and MACs are labelled with.
const (
	roleDialler  = "dialler"
	roleListener = "listener"
)

// ErrProof is returned, wrapped, when what the other side said does not prove
// that it belongs to this network.
var ErrProof = errors.New("the other side did not prove this network's token")

// Nonce is the fresh random bytes that one side contributes to an admission.
type Nonce [nonceSize]byte

// Session is a public name of one admitted connection on which both ends agree.
type Session [16]byte

// transcript is all that an admission is bound to from its start.
type transcript struct {
	version           byte
	dialler, listener identity.ID
	nonceD, nonceL    Nonce
}

func (t transcript) bytes() []byte {
	out := append([]byte(domain), 0, t.version)
	out = append(out, t.dialler[:]...)
	out = append(out, t.listener[:]...)
	out = append(out, t.nonceD[:]...)
	return append(out, t.nonceL[:]...)
}

// selector names a door and a version to those who have the door.
func (t transcript) selector(frame secret.Key) []byte {
	return mac(frame, "selector", t.bytes())[:selectorSize]
}

func mac(key secret.Key, label string, data []byte) []byte {
	h := hmac.New(sha256.New, key.Bytes())
	h.Write(append([]byte(domain+"/"+label), 0))
	h.Write(data)
	return h.Sum(nil)
}

// state is the hash of all that was said so far: h1, h2 or h3.
type state [sha256.Size]byte

func (t transcript) start(selector []byte) state {
	return sha256.Sum256(append(t.bytes(), selector...))
}

func (s state) after(sealed []byte) state {
	return sha256.Sum256(append(s[:], sealed...))
}

// derive makes the key of one purpose.
func (s state) derive(frame secret.Key, label string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, frame.Bytes(), s[:], domain+"/"+label, 32)
	if err != nil {
		return nil, fmt.Errorf("derive %s key: %w", label, err)
	}
	return key, nil
}

// seal makes the sealed terms of one role, with its join credential when the door has
// the key for it.
func (s state) seal(d token.Door, role string, terms Terms) ([]byte, error) {
	var join []byte
	if !d.Join.IsZero() {
		join = mac(d.Join, "join/"+role, s[:])
	}
	plain, err := terms.encode(join)
	if err != nil {
		return nil, err
	}
	key, err := s.derive(d.Find.Frame, role)
	if err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		return nil, fmt.Errorf("seal terms: %w", err)
	}
	// A nonce of zeros: the key seals nothing else.
	return aead.Seal(nil, make([]byte, aead.NonceSize()), plain, nil), nil
}

// open reads the sealed terms of one role and checks its credential. The error wraps
// ErrProof or, of somebody who has the door and speaks otherwise, ErrTerms.
func (s state) open(d token.Door, role string, sealed []byte) (Terms, error) {
	key, err := s.derive(d.Find.Frame, role)
	if err != nil {
		return Terms{}, err
	}
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		return Terms{}, fmt.Errorf("open terms: %w", err)
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), sealed, nil)
	if err != nil {
		return Terms{}, fmt.Errorf("open terms: %w", ErrProof)
	}
	terms, join, err := parseTerms(plain)
	if err != nil {
		return Terms{}, err
	}
	if d.Join.IsZero() || !hmac.Equal(join, mac(d.Join, "join/"+role, s[:])) {
		return Terms{}, fmt.Errorf("check join credential: %w", ErrProof)
	}
	return terms, nil
}

// Outcome is what an admission proved.
type Outcome struct {
	Standing Standing
	Gen      uint8      // of the door
	Session  Session    // the same on both ends
	PSK      secret.Key // the same on both ends, and nobody else's
	Terms    Terms      // the peer's
}

// outcome of a finished exchange; s is h3.
func (s state) outcome(d token.Door, peers Terms) (Outcome, error) {
	psk, err := s.derive(d.Find.Frame, "exporter")
	if err != nil {
		return Outcome{}, err
	}
	name, err := s.derive(d.Find.Frame, "session")
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{
		Standing: Member, Gen: d.Gen, Terms: peers,
		Session: Session(name[:len(Session{})]), PSK: secret.NewKey([32]byte(psk)),
	}, nil
}
