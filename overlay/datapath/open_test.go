package datapath

import (
	"bytes"
	"crypto/rand"
	"errors"
	mrand "math/rand/v2"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/secret"
	"github.com/kairos-io/kairos/overlay/session"
)

// agreed are the keys of two ends.
func agreed(t testing.TB) (sealing, opening *session.Keys) {
	t.Helper()
	party := func(self, peer identity.ID, index uint32) session.Party {
		return session.Party{Self: self, Peer: peer, PSK: secret.NewKey([32]byte{7}), Suites: session.Supported(true), Index: index, Rand: rand.Reader}
	}
	one, two := identity.ID{1}, identity.ID{2}
	handshake, first, err := session.Initiate(party(one, two, 1))
	if err != nil {
		t.Fatal(err)
	}
	opening, answer, err := session.Respond(party(two, one, 2), first)
	if err != nil {
		t.Fatal(err)
	}
	if sealing, err = handshake.Finish(answer); err != nil {
		t.Fatal(err)
	}
	return sealing, opening
}

// Whatever is opened, forged, joined, kept or dropped in between: what was kept stays as
// it was sealed, and payloads that were joined lie behind each other.
func TestOpener(t *testing.T) {
	sealing, opening := agreed(t)
	r := mrand.New(mrand.NewPCG(1, 2))
	var o opener
	for range 200 {
		o.reset()
		var want []byte
		headers := 0 // of a packet that may be joined
		for {
			payload := make([]byte, 1+r.IntN(1400))
			for i := range payload {
				payload[i] = byte(r.Uint32())
			}
			datagram, err := sealing.Seal(nil, payload, 0)
			if err != nil {
				t.Fatal(err)
			}
			if !o.fits(len(datagram)) {
				break
			}
			if r.IntN(4) == 0 {
				forged := bytes.Clone(datagram)
				forged[session.HeaderSize+r.IntN(len(forged)-session.HeaderSize)] ^= 1
				if err := o.next(opening, forged, headers); !errors.Is(err, session.ErrPacket) {
					t.Fatalf("forged: %v", err)
				}
			}
			if err := o.next(opening, datagram, headers); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(o.payload, payload) {
				t.Fatal("another payload is opened")
			}
			switch kind := r.IntN(4); {
			case kind == 0 && len(payload) > headers && o.lap > 0:
				o.join()
				want = append(want, payload[headers:]...)
			case kind == 1:
				if got := o.keep(); !bytes.Equal(got, payload) || cap(got) != len(got) {
					t.Fatal("another payload is kept")
				}
				o.drop()
			default:
				if got := o.keep(); !bytes.Equal(got, payload) || cap(got) != len(got) {
					t.Fatal("another payload is kept")
				}
				want = append(want, payload...)
				if headers = 20 + r.IntN(longestHeaders-19); headers >= len(payload) {
					headers = 0
				}
			}
			if !bytes.Equal(o.room, want) {
				t.Fatal("what was kept has changed")
			}
		}
	}
	if o.next(opening, []byte("no datagram"), 0) == nil {
		t.Error("junk is opened")
	}
}

// A datagram without a payload is none, and leaves what is there alone.
func TestOpenerOfNothing(t *testing.T) {
	sealing, opening := agreed(t)
	var o opener
	o.reset()
	first, err := sealing.Seal(nil, []byte("something"), 0)
	if err != nil {
		t.Fatal(err)
	}
	empty, err := sealing.Seal(nil, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.next(opening, first, 0); err != nil {
		t.Fatal(err)
	}
	o.keep()
	if err := o.next(opening, empty, 4); !errors.Is(err, session.ErrPacket) {
		t.Errorf("got %v", err)
	}
	if string(o.room) != "something" {
		t.Errorf("left is %q", o.room)
	}
}
