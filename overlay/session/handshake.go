package session

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/flynn/noise"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/secret"
)

// ErrHandshake is returned, wrapped, when what a peer said is not the handshake
// of this network between these two members.
var ErrHandshake = errors.New("not a handshake of this network between these members")

// Sizes of the two messages in bytes: a public key, the payload and its tag.
const (
	payloadSize   = 1 + 4
	HandshakeSize = 32 + payloadSize + TagSize
)

// prologue begins what both ends must agree on before the first message.
const prologue = "kairos/session/1\x00"

var noiseSuite = noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256)

// Party is one end of a handshake.
type Party struct {
	Self, Peer identity.ID
	PSK        secret.Key
	Suites     Suites    // what this machine does well
	Index      uint32    // how the peer is to mark packets for these keys
	Rand       io.Reader // crypto/rand.Reader outside of tests
}

// Initiator is a handshake that waits for its answer.
type Initiator struct {
	party Party
	state *noise.HandshakeState
}

// Initiate begins a handshake and returns the message for the peer.
func Initiate(p Party) (*Initiator, []byte, error) {
	state, err := p.noise(true)
	if err != nil {
		return nil, nil, fmt.Errorf("begin handshake: %w", err)
	}
	message, _, _, err := state.WriteMessage(nil, offer{p.Suites, p.Index}.bytes())
	if err != nil {
		return nil, nil, fmt.Errorf("begin handshake: %w", err)
	}
	return &Initiator{p, state}, message, nil
}

// Finish takes the peer's answer. The initiator is used up.
func (i *Initiator) Finish(message []byte) (*Keys, error) {
	payload, send, receive, err := read(i.state, message)
	if err != nil {
		return nil, fmt.Errorf("finish handshake: %w", err)
	}
	answer := parseOffer(payload)
	if answer.suites&i.party.Suites == 0 {
		return nil, fmt.Errorf("finish handshake: %w: the answer is %v", ErrHandshake, answer.suites)
	}
	keys, err := newKeys(answer.suites, direction{send.UnsafeKey(), answer.index}, direction{receive.UnsafeKey(), i.party.Index})
	if err != nil {
		return nil, fmt.Errorf("finish handshake: %w", err)
	}
	keys.initiator = true
	return keys, nil
}

// Respond takes the first message and returns the answer and the keys.
func Respond(p Party, message []byte) (*Keys, []byte, error) {
	state, err := p.noise(false)
	if err != nil {
		return nil, nil, fmt.Errorf("answer handshake: %w", err)
	}
	payload, _, _, err := read(state, message)
	if err != nil {
		return nil, nil, fmt.Errorf("answer handshake: %w", err)
	}
	offered := parseOffer(payload)
	suite := choose(p.Suites, offered.suites)
	if suite == 0 {
		return nil, nil, fmt.Errorf("answer handshake: no common AEAD: %v here, %v there", p.Suites, offered.suites)
	}
	answer, receive, send, err := state.WriteMessage(nil, offer{suite, p.Index}.bytes())
	if err != nil {
		return nil, nil, fmt.Errorf("answer handshake: %w", err)
	}
	keys, err := newKeys(suite, direction{send.UnsafeKey(), offered.index}, direction{receive.UnsafeKey(), p.Index})
	if err != nil {
		return nil, nil, fmt.Errorf("answer handshake: %w", err)
	}
	return keys, answer, nil
}

// read is ReadMessage for messages of the one size that there is.
func read(state *noise.HandshakeState, message []byte) (payload []byte, first, second *noise.CipherState, err error) {
	if len(message) != HandshakeSize {
		return nil, nil, nil, fmt.Errorf("%w: %d bytes instead of %d", ErrHandshake, len(message), HandshakeSize)
	}
	if payload, first, second, err = state.ReadMessage(nil, message); err != nil {
		return nil, nil, nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	return payload, first, second, nil
}

func (p Party) noise(initiator bool) (*noise.HandshakeState, error) {
	first, second := p.Self, p.Peer
	if !initiator {
		first, second = second, first
	}
	h := sha256.New()
	h.Write([]byte(prologue))
	h.Write(first[:])
	h.Write(second[:])
	return noise.NewHandshakeState(noise.Config{
		CipherSuite: noiseSuite, Random: p.Rand, Pattern: noise.HandshakeNN, Initiator: initiator,
		Prologue: h.Sum(nil), PresharedKey: p.PSK.Bytes(), PresharedKeyPlacement: 0,
	})
}

// offer is the payload of both messages.
type offer struct {
	suites Suites
	index  uint32
}

func (o offer) bytes() []byte {
	return binary.BigEndian.AppendUint32([]byte{byte(o.suites)}, o.index)
}

// parseOffer reads a payload, whose size read has checked.
func parseOffer(b []byte) offer {
	return offer{Suites(b[0]), binary.BigEndian.Uint32(b[1:])}
}
