package peer

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/kairos-io/kairos/overlay/api"
)

// TestOneAddressCannotTakeAllPlaces holds as many connections open from one
// address as the server has places for all.
func TestOneAddressCannotTakeAllPlaces(t *testing.T) {
	w := &world{}
	alice, bob := w.join(t, "alice", "127.0.0.1"), w.join(t, "bob", "127.0.0.2")
	port := start(t, bob, http.HandlerFunc(echo))
	greedy := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	for range maxConns + 1 {
		c, err := greedy.DialContext(t.Context(), "tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port).String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	p := New(Options{Overlay: alice, Port: port})
	defer p.CloseIdle()
	if got, err := p.Post(t.Context(), idOf(bob.key), "/v1/echo", []byte("hello")); err != nil || string(got) != "alice said hello" {
		t.Errorf("another address: %q, %v", got, err)
	}
}

func TestLimitedForgets(t *testing.T) {
	l := newLimited(nil)
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for range maxConnsEach {
		if !l.take(a) {
			t.Fatal("refused below the limit")
		}
	}
	if l.take(a) || !l.take(b) {
		t.Error("the limit is not one per address")
	}
	l.give(b)
	for range maxConnsEach {
		l.give(a)
	}
	if len(l.open) != 0 || l.all != 0 {
		t.Errorf("left: %v, %d", l.open, l.all)
	}
}

// TestOneAddressCannotAskWithoutEnd floods from one address.
func TestOneAddressCannotAskWithoutEnd(t *testing.T) {
	w := &world{}
	alice, bob := w.join(t, "alice", "127.0.0.1"), w.join(t, "bob", "127.0.0.2")
	port := start(t, bob, http.HandlerFunc(echo))
	p := New(Options{Overlay: alice, Port: port})
	defer p.CloseIdle()
	var refused *api.Error
	for i := 0; refused == nil; i++ {
		_, err := p.Post(t.Context(), idOf(bob.key), "/v1/echo", nil)
		if err != nil && !errors.As(err, &refused) {
			t.Fatal(err)
		}
		if i > 100*requestsBurst {
			t.Fatal("never refused")
		}
	}
	if refused.Status != http.StatusTooManyRequests {
		t.Errorf("refused with %d: %v", refused.Status, refused)
	}
}

func TestQuotaIsOneForEachAddress(t *testing.T) {
	var q quota
	a := netip.MustParseAddr("10.0.0.1")
	for q.allow(a) {
		continue
	}
	b := a
	for range 2 * maxBudgets {
		b = b.Next()
		if !q.allow(b) {
			t.Fatalf("%s pays for another", b)
		}
	}
	if len(q.by) > maxBudgets {
		t.Errorf("%d addresses are remembered", len(q.by))
	}
}
