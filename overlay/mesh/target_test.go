package mesh

import (
	"net/netip"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Whatever is said on the local network, a node believes only so much of it.
func TestRumoursAreBounded(t *testing.T) {
	m := start(t, Config{Keys: testKeys(t), Timing: quick})
	nowhere := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}
	for i := range 1000 {
		m.found(identity.ID{1, byte(i), byte(i >> 8)}, nowhere)
	}
	if n := m.Stats().Members; n != maxRumours {
		t.Errorf("%d rumours believed, want %d", n, maxRumours)
	}
	known := testKey(t).ID()
	m.Learn(known, []string{"127.0.0.1:1"})
	if n := m.Stats().Members; n != maxRumours+1 {
		t.Errorf("a member that another vouched for was not taken in: %d", n)
	}
	m.Forget(known)
	if n := m.Stats().Members; n != maxRumours {
		t.Errorf("a member was not forgotten: %d", n)
	}
}

func TestLearnIgnoresJunk(t *testing.T) {
	m := start(t, Config{Keys: testKeys(t)})
	m.Learn(m.ID(), []string{"127.0.0.1:1"})
	m.Learn(identity.ID{}, []string{"127.0.0.1:1"})
	if n := m.Stats().Members; n != 0 {
		t.Errorf("%d members, want none: oneself and nobody are none", n)
	}
	m.Learn(testKey(t).ID(), []string{"", "host:1", "127.0.0.1", "127.0.0.1:99999", "[::1"})
	if n := m.Stats().Dials; n != 0 {
		t.Errorf("%d dials of junk", n)
	}
}
