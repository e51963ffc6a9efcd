package datapath

import (
	"encoding/binary"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kairos-io/kairos/overlay/session"
)

func (m *member) path(to *member) PathInfo { return m.dp.Stats().Peers[to.id].Path }

// wantMTU waits until packets of close to limit bytes go directly both ways, and
// returns the size that one has found. Meanwhile there are packets all the time.
func (a *air) wantMTU(limit int) int {
	a.t.Helper()
	one, two := a.members[0], a.members[1]
	close := func(m, to *member) bool {
		p := m.path(to)
		return p.Kind == KindDirect && p.MTU <= limit && (p.MTU == limit || limit < DefaultMTU && limit-p.MTU < 16)
	}
	for range 1000 {
		if close(one, two) && close(two, one) {
			return one.path(two).MTU
		}
		one.chat(two)
		two.chat(one)
		time.Sleep(100 * time.Millisecond) // of the bubble's time
	}
	a.t.Fatalf("%+v and %+v, want an mtu of %d", one.path(two), two.path(one), limit)
	return 0
}

// advised is the MTU in the next packet too big that m's programs are sent.
func (m *member) advised() int {
	m.t.Helper()
	for {
		pkt := m.next()
		switch {
		case pkt[0]>>4 == 4 && pkt[9] == protoICMP4:
			if pkt[20] != icmp4Unreachable || pkt[21] != icmp4TooBig {
				m.t.Fatalf("ICMP type %d, code %d", pkt[20], pkt[21])
			}
			return int(binary.BigEndian.Uint16(pkt[26:]))
		case pkt[0]>>4 == 6 && pkt[6] == protoICMP6:
			if pkt[40] != icmp6TooBig {
				m.t.Fatalf("ICMPv6 type %d", pkt[40])
			}
			return int(binary.BigEndian.Uint32(pkt[44:]))
		}
	}
}

// Packets go directly where the path takes less than the interface, however that
// shows; and whoever sends larger ones is told what it takes.
func TestPathFitsThePath(t *testing.T) {
	for name, limit := range map[string]func(*air, int){
		"larger ones are lost":    func(a *air, n int) { a.largest = n },
		"larger ones are refused": func(a *air, n int) { a.refuse = n },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAir(t)
				one, two := a.members[0], a.members[1]
				a.wantMTU(DefaultMTU)
				for i, most := range []int{1400, 1350, 1300} {
					a.set(func() { limit(a, most+session.Overhead) })
					if a.refuse > 0 { // what is refused is lost, and the next one knows better
						one.dev.Inject(packet(one.v4, two.v4, 1, one.path(two).MTU))
						two.dev.Inject(packet(two.v4, one.v4, 1, two.path(one).MTU))
						one.wantDrops(DropLinkLost, uint64(i+1))
						two.wantDrops(DropLinkLost, uint64(i+1))
						if kinds := one.kind(two) + two.kind(one); kinds != KindDirect+KindDirect {
							t.Errorf("packets of every size go by %s", kinds)
						}
					}
					mtu := a.wantMTU(most)
					a.network.mu.Lock()
					streams := len(a.streams)
					a.network.mu.Unlock()
					a.exchange(5, min(mtu, two.path(one).MTU))
					for _, big := range [][]byte{packet(one.v4, two.v4, 1, mtu+1), packet(one.v6, two.v6, 1, mtu+1), packet(one.v4, two.v4, 1, DefaultMTU)} {
						one.dev.Inject(big)
						if got := one.advised(); got != mtu {
							t.Errorf("packet too big says %d, want %d", got, mtu)
						}
					}
					a.network.mu.Lock()
					if len(a.streams) != streams {
						t.Error("packets took a stream")
					}
					a.network.mu.Unlock()
				}
				// What the stream takes does not depend on it.
				a.set(func() { a.cut = true })
				a.wantKind(KindStream)
				a.exchange(2, DefaultMTU)
				// It is found again from the start, and all of it once it is there.
				a.set(func() { a.cut = false; limit(a, 1350+session.Overhead) })
				a.again(one)
				a.again(two)
				a.wantMTU(1350)
				a.set(func() { limit(a, 0) })
				for range 6 {
					time.Sleep(100 * time.Second)
					a.exchange(1, 100)
				}
				a.wantMTU(DefaultMTU)
				a.exchange(5, DefaultMTU)
			})
		})
	}
}

// Nobody talks, so nobody looks whether the path has become larger.
func TestNarrowPathIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(t)
		a.set(func() { a.largest = 1350 + session.Overhead })
		a.wantMTU(1350)
		time.Sleep(session.RejectAfterTime)
		before := a.count()
		time.Sleep(time.Hour)
		if n := a.count() - before; n > 0 {
			t.Errorf("%d datagrams in an hour of silence", n)
		}
	})
}

// The chosen path says why it is, and so does each of the others.
func TestPathSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(t)
		one, two := a.members[0], a.members[1]
		want := func(why string) {
			t.Helper()
			if got := one.path(two).Why; got != why {
				t.Errorf("it says %q, want %q", got, why)
			}
		}
		a.wantKind(KindDirect)
		want("udp probe answered")
		paths := one.dp.Stats().Peers[two.id].Paths
		if len(paths) != 2 || paths[0].Remote != a.place[1] || paths[0].Local != a.place[0].Addr() || paths[1].Kind != KindStream || paths[1].Chosen {
			t.Errorf("%+v", paths)
		}
		if p := paths[0]; !p.Chosen || !p.Up || p.Age < 0 || p.Age > time.Minute || p.MTU != DefaultMTU {
			t.Errorf("%+v", p)
		}
		a.set(func() { a.cut = true })
		a.wantKind(KindStream)
		time.Sleep(3 * time.Second)
		want("udp probes are not answered")
		a.set(func() { a.cut = false })
		a.wantKind(KindDirect)
		e := one.dp.peer(two.id).chosen.Load()
		a.set(func() { a.cut = true })
		one.dp.peer(two.id).refused(e, 100, syscall.ENETUNREACH)
		want("packets are refused: network is unreachable")
		a.set(func() { a.cut = false })
		a.wantKind(KindDirect)
		want("udp probe answered")
		one.dp.peer(two.id).refused(one.dp.peer(two.id).chosen.Load(), 100, syscall.EMSGSIZE)
		one.dp.peer(two.id).shaken(errors.New("no answer"), 0)
		want(whyNotAgreed)
	})
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 2).start()
		if got := n.members[0].path(n.members[1]).Why; got != "no udp connection" {
			t.Errorf("it says %q", got)
		}
	})
}
