package datapath

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kairos-io/kairos/overlay/offload"
	"github.com/kairos-io/kairos/overlay/session"
)

func TestDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(t)
		a.wantKind(KindDirect)
		a.network.mu.Lock()
		streams := len(a.streams)
		a.network.mu.Unlock()
		a.exchange(100, DefaultMTU)
		a.network.mu.Lock()
		defer a.network.mu.Unlock()
		if len(a.streams) != streams {
			t.Error("packets took a stream")
		}
		for _, d := range a.seen {
			if bytes.Contains(d, a.members[0].v4.AsSlice()) {
				t.Fatal("an address is on the wire")
			}
		}
		if stats := a.members[1].dp.Stats().Peers[a.members[0].id]; stats.RxPackets < 100 || stats.TxPackets < 100 {
			t.Errorf("%+v", stats)
		}
	})
}

// Packets take the stream while UDP does not get through, and go directly again
// once it does; in between some are lost, and none is later.
func TestDatagramsEndsAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(t)
		a.wantKind(KindDirect)
		for range 3 {
			a.set(func() { a.cut = true })
			a.wantKind(KindStream)
			a.exchange(5, 100)
			a.set(func() { a.cut = false })
			a.wantKind(KindDirect)
			a.exchange(5, 100)
		}
	})
}

// A way on which only packets smaller than the floor get through is none.
func TestDatagramsIsWideEnough(t *testing.T) {
	for name, limit := range map[string]func(*air){
		"larger ones are lost":    func(a *air) { a.largest = 1190 },
		"larger ones are refused": func(a *air) { a.refuse = 1190 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAir(t)
				a.wantKind(KindDirect)
				a.set(func() { limit(a) })
				if one, two := a.members[0], a.members[1]; a.refuse > 0 { // what is refused is lost, once
					one.dev.Inject(packet(one.v4, two.v4, talk, DefaultMTU))
					one.wantDrops(DropLinkLost, 1)
					two.dev.Inject(packet(two.v4, one.v4, talk, DefaultMTU))
					two.wantDrops(DropLinkLost, 1)
				}
				a.wantKind(KindStream)
				a.exchange(3, DefaultMTU)
				time.Sleep(time.Minute)
				a.wantKind(KindStream)
				a.set(func() { a.largest, a.refuse = 0, 0 })
				a.wantKind(KindDirect)
			})
		})
	}
}

// Nobody talks, so nobody probes; what comes then goes directly at once.
func TestDatagramsIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(t)
		a.wantKind(KindDirect)
		time.Sleep(session.RejectAfterTime) // in which keys are made once more
		before, shaken := a.count(), a.shaken
		time.Sleep(time.Hour)
		if n := a.count() - before; n > 0 || a.shaken != shaken {
			t.Errorf("%d datagrams and %d handshakes in an hour of silence", n, a.shaken-shaken)
		}
		a.exchange(1, 100)      // the keys are too old: the first packet does not wait for others
		time.Sleep(time.Second) // of the bubble's time, in which new ones are made
		before = a.count()
		a.exchange(10, 100)
		if n := a.count() - before; n < 20 {
			t.Errorf("%d datagrams for 20 packets", n)
		}
	})
}

// One end alone meets the other anew, and has nothing to say: what it is sent goes to
// keys that it does not have any more, but not for long.
func TestDatagramsBeginsAnewAtOneEnd(t *testing.T) {
	for _, first := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			a := newAir(t)
			here, there := a.members[first], a.members[1-first]
			a.wantKind(KindDirect)
			a.again(there)
			got := there.dp.Stats().Peers[here.id].RxPackets
			for range 20 {
				here.chat(there)
				time.Sleep(100 * time.Millisecond)
			}
			if kinds := here.kind(there) + there.kind(here); kinds != KindDirect+KindDirect {
				t.Errorf("packets go by %s", kinds)
			}
			if got = there.dp.Stats().Peers[here.id].RxPackets - got; got < 20-11 {
				t.Errorf("%d packets of 20 arrived", got)
			}
			before := there.dp.Stats().Drops[DropJunk.String()]
			a.exchange(5, 100)
			if lost := there.dp.Stats().Drops[DropJunk.String()] - before; lost > 0 {
				t.Errorf("%d more", lost)
			}
		})
	}
}

// A way whose keys have ended in silence, and were made anew by the other end, is
// watched again at once: its end shows in seconds.
func TestDatagramsIsWatchedWithNewKeys(t *testing.T) {
	for _, first := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			a := newAir(t)
			here, there := a.members[first], a.members[1-first]
			a.wantKind(KindDirect)
			time.Sleep(3 * session.RejectAfterTime)
			here.chat(there)
			here.chat(there)
			time.Sleep(time.Second) // in which new keys are made
			a.exchange(1, 100)
			a.set(func() { a.cut = true })
			for range int(2500 * time.Millisecond / (100 * time.Millisecond)) {
				here.chat(there)
				there.chat(here)
				time.Sleep(100 * time.Millisecond)
			}
			if kinds := here.kind(there) + there.kind(here); kinds != KindStream+KindStream {
				t.Errorf("packets go by %s", kinds)
			}
		})
	}
}

// New keys are made again and again, and no packet is lost to it.
func TestDatagramsRekeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(t)
		a.wantKind(KindDirect)
		index := func() uint32 {
			keys := a.members[0].dp.peer(a.members[1].id).session.Sealing(a.members[0].dp.now())
			return keys.Index()
		}
		seen := []uint32{index()}
		for range 30 {
			time.Sleep(session.RekeyAfterTime / 3)
			a.exchange(2, 500)
			if now := index(); now != seen[len(seen)-1] {
				seen = append(seen, now)
			}
		}
		if len(seen) < 8 {
			t.Errorf("%d keys in ten times of their life", len(seen))
		}
		for _, m := range a.members {
			if n := len(*m.dp.arrivals.Load()); n > 3 {
				t.Errorf("%d keys are kept", n)
			}
			for reason, n := range m.dp.Stats().Drops {
				if n > 0 {
					t.Errorf("%d packets dropped: %s", n, reason)
				}
			}
		}
	})
}

// What strangers send costs a counter; what members send twice, too.
func TestDatagramsDropsWhatIsNotSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(t)
		a.wantKind(KindDirect)
		one, two := a.members[0], a.members[1]
		before := a.count()
		sealed := func() []byte { a.mu.Lock(); defer a.mu.Unlock(); return bytes.Clone(a.seen[before-1]) }()
		forged := bytes.Clone(sealed)
		forged[14] ^= 1 // another counter: as it stands it would be one that was seen
		junk := [][]byte{{}, {1}, bytes.Repeat([]byte{1}, 100), forged, make([]byte, 40), packet(one.v4, two.v4, 1, 100)}
		for _, j := range junk {
			for _, m := range a.members {
				m.dp.HandleDatagrams(a.from(m), [][]byte{bytes.Clone(j)})
			}
		}
		for _, m := range a.members {
			m.wantDrops(DropJunk, uint64(len(junk)))
		}
		a.set(func() { a.twice = true })
		a.exchange(10, 100)
		for _, m := range a.members {
			m.wantDrops(DropReplay, 10)
		}
		if n := a.count() - before; n != 20 {
			t.Errorf("%d datagrams left for 20 packets", n)
		}
	})
}

// An admitted member speaks for nobody else, on this way neither.
func TestDatagramsRefusesSpoofedSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(t)
		a.wantKind(KindDirect)
		one, two := a.members[0], a.members[1]
		keys := one.dp.peer(two.id).session.Sealing(one.dp.now())
		for n := range 100 {
			p, err := keys.Seal(nil, packet(netip.MustParseAddr("10.77.1.2"), two.v4, n, 100), 0)
			if err != nil {
				t.Fatal(err)
			}
			two.dp.HandleDatagrams(a.from(two), [][]byte{p})
		}
		two.wantDrops(DropSpoofed, 100)
		a.exchange(1, 100)
	})
}

// A member that knows nothing of the direct way is spoken to by streams.
func TestNoDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 2).start()
		one, two := n.members[0], n.members[1]
		near, far := pipe()
		go func() { _, _ = near.Write(make([]byte, session.HandshakeSize)) }()
		one.dp.HandleSession(two.id, memSession{far})
		if _, err := near.Read(make([]byte, 1)); err == nil {
			t.Error("it answers a handshake")
		}
		one.dev.Inject(packet(one.v4, two.v4, 1, 100))
		two.wantNumber(1)
		if kinds := []string{one.kind(two), two.kind(one)}; !slices.Equal(kinds, []string{KindStream, KindStream}) {
			t.Errorf("packets go by %v", kinds)
		}
	})
}

// discard is a device that takes every packet and keeps none.
type discard struct{ Device }

func (discard) Write(offload.Header, [][]byte) error { return nil }

// keeper is a Sender that keeps what was sent, in room that it has.
type keeper struct {
	room    [][]byte
	packets [][]byte
}

func (k *keeper) Send(packets [][]byte) (int, error) {
	for _, p := range packets {
		i := len(k.packets)
		k.packets = append(k.packets, append(k.room[i][:0], p...))
	}
	return len(packets), nil
}

func (*keeper) Offer([]byte) error { return nil }

// A packet costs no allocation, neither on its way out nor in.
func TestDatagramsDoesNotAllocate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(t, func(c *Config) { c.Device = discard{c.Device} })
		a.wantKind(KindDirect)
		one, two := a.members[0], a.members[1]
		out := &keeper{room: make([][]byte, steadyBatch), packets: make([][]byte, 0, steadyBatch)}
		for i := range out.room {
			out.room[i] = make([]byte, 0, 2*DefaultMTU)
		}
		var pkts [][]byte
		for n := range steadyBatch {
			pkts = append(pkts, packet(one.v4, two.v4, n, DefaultMTU))
		}
		from := a.from(two)
		s := newSender(one.dp)
		s.now = one.dp.now()
		one.dp.peer(two.id).chosen.Load().out = out
		if n := testing.AllocsPerRun(20, func() {
			out.packets = out.packets[:0]
			s.forwardAll(pkts)
			two.dp.HandleDatagrams(from, out.packets)
		}); n > 0 {
			t.Errorf("%v allocations for %d packets", n, steadyBatch)
		}
		if got := two.dp.Stats().Peers[one.id].RxPackets; got < steadyBatch {
			t.Errorf("%d packets arrived", got)
		}
	})
}
