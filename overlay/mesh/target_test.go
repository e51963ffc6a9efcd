package mesh

import (
	"net/netip"
	"slices"
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
	m.Learn(known, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")})
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
	m.Learn(m.ID(), []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")})
	m.Learn(identity.ID{}, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")})
	if n := m.Stats().Members; n != 0 {
		t.Errorf("%d members, want none: oneself and nobody are none", n)
	}
	m.Learn(testKey(t).ID(), []netip.AddrPort{{}, netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("224.0.0.1:1"), netip.MustParseAddrPort("[::]:1")})
	if n := m.Stats().Dials; n != 0 {
		t.Errorf("%d dials of junk", n)
	}
}

// Announcements that somebody made up do not crowd out where a member says that it is.
func TestRumoursLeaveRoomForRecords(t *testing.T) {
	m := start(t, Config{Keys: testKeys(t), Timing: quick})
	id, real := testKey(t).ID(), netip.MustParseAddrPort("192.0.2.1:4171")
	var forged []netip.AddrPort
	for i := range 2 * maxAddrs {
		forged = append(forged, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}), 1))
	}
	m.Learn(id, []netip.AddrPort{real})
	m.found(id, forged)
	m.mu.Lock()
	known := m.targets[id]
	m.mu.Unlock()
	if got := m.addrs(t.Context(), known); !slices.Contains(got, real) || len(got) != maxHeard+1 {
		t.Errorf("dials %v, want %v among %d", got, real, maxHeard+1)
	}
}
