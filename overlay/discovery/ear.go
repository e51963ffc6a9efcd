package discovery

import (
	"crypto/cipher"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/secret"
)

// ear decides what to believe of what is heard on the local network, and says what this
// node says there. It does no I/O and is safe for concurrent use.
type ear struct {
	self   identity.ID
	keys   []cipher.AEAD
	clock  windows
	random io.Reader

	mu   sync.Mutex // guards what follows
	pace pace
}

func newEar(self identity.ID, keys []secret.Key, now func() time.Time, random io.Reader) (*ear, error) {
	e := &ear{self: self, clock: windows{now: now}, random: random}
	for _, k := range keys {
		aead, err := chacha20poly1305.NewX(k.Bytes())
		if err != nil {
			return nil, fmt.Errorf("use the network's key for announcements: %w", err)
		}
		e.keys = append(e.keys, aead)
	}
	return e, nil
}

// say returns the messages that announce this node, one for each key.
func (e *ear) say(addrs []netip.AddrPort) (msgs [][]byte, err error) {
	a := announcement{Window: e.clock.current(), ID: e.self, Addrs: addrs}
	for _, key := range e.keys {
		sealed, err := a.seal(key, e.random)
		if err != nil {
			return nil, err
		}
		msg, err := response(sealed, e.random)
		if err != nil {
			return nil, err
		}
		msgs = append(msgs, msg)
	}
	return msgs, nil
}

// believe returns what a member announced, and false for all else: strangers, recordings,
// this node itself, and a source that speaks too often.
func (e *ear) believe(sealed []byte, from netip.Addr) (announcement, bool) {
	for _, key := range e.keys {
		a, err := open(key, sealed)
		if err != nil {
			continue
		}
		if a.ID == e.self || !e.clock.accept(a.Window) {
			return announcement{}, false
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		return a, e.pace.allow(from, e.clock.now())
	}
	return announcement{}, false
}

// nearFirst moves the addresses that are in near to the front.
func nearFirst(addrs []netip.AddrPort, near []netip.Addr) []netip.AddrPort {
	out := slices.Clone(addrs)
	slices.SortStableFunc(out, func(a, b netip.AddrPort) int {
		return rank(a, near) - rank(b, near)
	})
	return out
}

func rank(a netip.AddrPort, near []netip.Addr) int {
	if slices.Contains(near, a.Addr().Unmap()) {
		return 0
	}
	return 1
}
