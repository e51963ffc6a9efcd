package datapath

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kairos-io/kairos/overlay/path"
	"github.com/kairos-io/kairos/overlay/session"
)

// elsewhere is another place of a member.
func elsewhere(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}), 999)
}

// gap lets both members talk until packets arrive both ways again, and returns how long
// that took.
func (a *air) gap() time.Duration {
	a.t.Helper()
	one, two := a.members[0], a.members[1]
	began := time.Now()
	before := [2]uint64{one.received(two), two.received(one)}
	for range 1000 {
		one.chat(two)
		two.chat(one)
		time.Sleep(10 * time.Millisecond) // of the bubble's time
		if one.received(two) > before[0] && two.received(one) > before[1] {
			return time.Since(began)
		}
	}
	a.t.Fatalf("no packets any more: %v %v", one.dp.Stats().Peers[two.id].Paths, two.dp.Stats().Peers[one.id].Paths)
	return 0
}

func (m *member) received(from *member) uint64 { return m.dp.Stats().Peers[from.id].RxPackets }

func (m *member) keys(of *member) *session.Keys { return m.dp.peer(of.id).session.Sealing(m.dp.now()) }

// drain throws away what programs got, so that they can get more.
func (a *air) drain() {
	for _, m := range a.members {
		for len(m.dev.Out) > 0 {
			<-m.dev.Out
		}
	}
}

// A member whose address changes, or whose translator gives it another one, goes on with
// the same keys: the other one follows. Nobody tells either of them anything.
func TestRoaming(t *testing.T) {
	for name, translated := range map[string]bool{"an address is gone": false, "a translator rebinds": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAir(t)
				one, two := a.members[0], a.members[1]
				a.wantKind(KindDirect)
				time.Sleep(3 * time.Second) // both may have begun a handshake
				a.exchange(2, 100)          // and each uses the other one's keys now
				keys, shaken := one.keys(two), a.shaken
				// The streams lead nowhere, so that only datagrams count.
				a.network.mu.Lock()
				a.intercept = func(_, _ *member, near, _ *memStream) (Stream, *memStream, error) { return near, nil, nil }
				a.network.mu.Unlock()
				a.breakAll()
				for i := range 4 {
					a.drain()
					a.set(func() {
						a.place[0] = [2]netip.AddrPort{elsewhere(0), netip.MustParseAddrPort("192.0.2.1:4171")}[i%2]
						if translated {
							a.inside = netip.MustParseAddr("192.0.2.1")
						}
					})
					if gap := a.gap(); gap > time.Second {
						t.Errorf("packets go again after %v", gap)
					} else {
						t.Logf("RESULT %s: packets go again after %v", name, gap)
					}
					if got := two.path(one); got.Kind != KindDirect || got.Remote != a.place[0] {
						t.Errorf("packets go by %v", got)
					}
				}
				if one.keys(two) != keys || a.shaken != shaken {
					t.Error("it took other keys")
				}
			})
		})
	}
}

// A network that changes without harm changes nothing; neither does another connection.
func TestChangesKeepKeysAndPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(t)
		one, two := a.members[0], a.members[1]
		a.wantKind(KindDirect)
		time.Sleep(3 * time.Second) // both may have begun a handshake
		a.exchange(2, 100)          // and each uses the other one's keys now
		keys, chosen := one.keys(two), one.path(two).Path
		for range 5 {
			one.dp.NetworkChanged()
			a.exchange(5, 100)
			one.dp.Candidates(two.id) // a connection over TCP is the best for a while
			one.dp.ConnectionChanged(two.id)
			a.exchange(5, 100)
			a.connect(one)
			one.dp.ConnectionChanged(two.id)
			time.Sleep(time.Second)
			a.exchange(5, 100)
		}
		if one.keys(two) != keys || one.path(two).Path != chosen || len(one.dp.Stats().Peers[two.id].Paths) != 2 {
			t.Errorf("packets go by %v with keys %v; paths %v", one.path(two), one.keys(two), one.dp.Stats().Peers[two.id].Paths)
		}
	})
}

// Datagrams that somebody on the way catches and sends again, before the real ones, with
// another source address: packets do not follow, and next to nothing goes there.
func TestForgedSourceMovesNoPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(t)
		one, two := a.members[0], a.members[1]
		a.wantKind(KindDirect)
		chosen := one.path(two).Path
		victim := netip.MustParseAddrPort("203.0.113.9:53")
		var caught int
		a.set(func() {
			a.forge = func(f flight) flight {
				caught++
				f.by.Remote = victim
				return f
			}
		})
		for range 60 {
			two.chat(one)
			one.chat(two)
			time.Sleep(100 * time.Millisecond)
			a.drain()
		}
		a.mu.Lock()
		sent, bytes := 0, 0
		for _, n := range a.strays[victim] {
			sent, bytes = sent+1, max(bytes, n)
		}
		a.mu.Unlock()
		if caught < 60 || sent > caught || bytes > controlSize+session.Overhead {
			t.Errorf("%d datagrams of up to %d bytes went to the victim, for %d that claimed to come from there", sent, bytes, caught)
		}
		if got := one.path(two).Path; got != chosen {
			t.Errorf("packets go by %v", got)
		}
		a.set(func() { a.forge = nil })
		a.exchange(5, 100)
	})
}

// Replayed datagrams make no candidates at all.
func TestReplayedSourceIsNoCandidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(t)
		one, two := a.members[0], a.members[1]
		a.wantKind(KindDirect)
		time.Sleep(time.Second)
		a.mu.Lock()
		seen := a.seen
		a.mu.Unlock()
		for _, m := range a.members {
			for _, d := range seen {
				m.dp.HandleDatagrams(path.Path{Socket: 1, Remote: netip.MustParseAddrPort("203.0.113.9:53")}, [][]byte{bytes.Clone(d)})
			}
		}
		for _, paths := range [][]PathInfo{one.dp.Stats().Peers[two.id].Paths, two.dp.Stats().Peers[one.id].Paths} {
			if len(paths) != 2 {
				t.Errorf("paths %v", paths)
			}
		}
	})
}

// A path of 1280 bytes, headers of UDP and ours included, carries every packet that IPv6
// asks for, and does not end when it becomes one.
func TestPathOf1280(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(t)
		one, two := a.members[0], a.members[1]
		a.wantKind(KindDirect)
		a.set(func() { a.largest = 1280 - 28 })
		a.wantMTU(MinMTU)
		for _, size := range []int{MinMTU, MinMTU - 1, 1221, 1220, 1168, 100} {
			a.exchange(3, size)
			if kinds := one.kind(two) + two.kind(one); kinds != KindDirect+KindDirect {
				t.Errorf("packets go by %s", kinds)
			}
		}
		one.dev.Inject(packet(one.v4, two.v4, 1, MinMTU+1))
		if got := one.advised(); got != MinMTU {
			t.Errorf("packet too big says %d", got)
		}
	})
}

// What one end sends first does not arrive, since it leaves from an address that does not
// get through: the other one asks, and shows the address that does.
func TestOneEndCannotBegin(t *testing.T) {
	for _, deaf := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			a := newAir(t, func(*Config) {})
			// Packets from a kernel's choice of the address are lost to that end.
			a.set(func() { a.deaf, a.isDeaf = deaf, true })
			for _, m := range a.members {
				a.again(m)
			}
			time.Sleep(2 * time.Second) // without a packet to send
			one, two := a.members[0], a.members[1]
			if kinds := one.kind(two) + two.kind(one); kinds != KindDirect+KindDirect {
				t.Errorf("packets go by %s: %v, %v", kinds, one.path(two).Why, two.path(one).Why)
			}
		})
	}
}
