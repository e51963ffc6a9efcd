package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/offload"
	"github.com/kairos-io/kairos/overlay/tun/tuntest"
	"github.com/kairos-io/kairos/overlay/wire"
)

func TestPacketsPassInOrder(t *testing.T) {
	n := newNetwork(t, 3).start()
	for _, c := range []struct {
		name     string
		from, to int
		addr     func(*member) netip.Addr
	}{
		{"IPv4", 0, 1, func(m *member) netip.Addr { return m.v4 }},
		{"IPv4 back", 1, 0, func(m *member) netip.Addr { return m.v4 }},
		{"IPv6", 2, 1, func(m *member) netip.Addr { return m.v6 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to := n.members[c.from], n.members[c.to]
			const count = 1000
			total := 0
			for i := range count {
				pkt := packet(c.addr(from), c.addr(to), i, 40+i)
				total += len(pkt)
				from.dev.Inject(pkt)
				to.wantNumber(i)
			}
			s := to.dp.Stats().Peers[from.id]
			if s.RxPackets < count || s.RxBytes < uint64(total) {
				t.Errorf("received %+v of %d packets with %d bytes", s, count, total)
			}
		})
	}
	s := n.members[0].dp.Stats().Peers[n.members[1].id]
	if s.TxPackets != 1000 || s.Path.Kind != "stream" || !s.Path.Up || len(s.Drops) != 0 {
		t.Errorf("sender's view: %+v", s)
	}
	if p := n.members[0].dp.Stats().Peers[n.members[2].id]; p.Path.Up {
		t.Errorf("a stream nobody needed is open: %+v", p)
	}
}

func TestSpoofedSourceIsNeverDelivered(t *testing.T) {
	n := newNetwork(t, 3).start()
	mallory, victim, other := n.members[0], n.members[1], n.members[2]
	s := n.raw(mallory, victim)
	const count = 10_000
	sources := []func(i int) netip.Addr{
		func(int) netip.Addr { return other.v4 },
		func(int) netip.Addr { return victim.v4 },
		func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 42, byte(i >> 8), byte(i)}) },
		func(int) netip.Addr { return netip.IPv4Unspecified() },
	}
	var frames []byte
	for i := range count {
		frames = wire.AppendFrame(frames, packet(sources[i%len(sources)](i), victim.v4, i, 0), 0)
	}
	frames = wire.AppendFrame(frames, packet(mallory.v4, victim.v4, 77, 0), 0)
	if _, err := s.Write(frames); err != nil {
		t.Fatal(err)
	}
	victim.wantNumber(77) // behind all the others, and the first to arrive
	victim.wantDrops(DropSpoofed, count)
	if got := victim.dp.Stats().Peers[mallory.id].Drops["spoofed"]; got != count {
		t.Errorf("%d spoofed packets counted for the peer, want %d", got, count)
	}
	if p := victim.dp.Stats().Peers[mallory.id]; p.RxPackets != 1 {
		t.Errorf("%d packets counted as received", p.RxPackets)
	}
}

func TestForeignDestinationIsNotDelivered(t *testing.T) {
	n := newNetwork(t, 3).start()
	from, to, other := n.members[0], n.members[1], n.members[2]
	s := n.raw(from, to)
	var frames []byte
	for _, dst := range []netip.Addr{other.v4, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("224.0.0.1"), from.v4} {
		frames = wire.AppendFrame(frames, packet(from.v4, dst, 1, 0), 0)
	}
	frames = wire.AppendFrame(frames, packet(from.v4, to.v4, 2, 0), 0)
	if _, err := s.Write(frames); err != nil {
		t.Fatal(err)
	}
	to.wantNumber(2)
	to.wantDrops(DropNotOurs, 4)
}

// chunks is a stream whose Read returns pieces of chosen sizes.
type chunks struct {
	Stream
	size func() int
}

func (c *chunks) Read(b []byte) (int, error) { return c.Stream.Read(b[:min(len(b), c.size())]) }

func TestFramesSplitAnywhere(t *testing.T) {
	for name, size := range map[string]func() int{
		"single bytes": func() int { return 1 },
		"odd":          func() int { return 37 },
		"random":       func() int { return 1 + rand.IntN(5000) },
		"whole":        func() int { return 1 << 20 },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, 2)
			n.start()
			from, to := n.members[0], n.members[1]
			near, far := pipe()
			n.running.Go(func() { to.dp.HandleStream(from.id, &chunks{far, size}) })
			var frames []byte
			const count = 200
			for i := range count {
				frames = wire.AppendFrame(frames, packet(from.v4, to.v4, i, 24+i*31%1400), 0)
			}
			go func() {
				_, _ = near.Write(frames)
				_ = near.Close()
			}()
			for i := range count {
				to.wantNumber(i)
			}
		})
	}
	t.Run("every boundary", func(t *testing.T) {
		n := newNetwork(t, 2).start()
		from, to := n.members[0], n.members[1]
		var frames []byte
		for i := range 3 {
			frames = wire.AppendFrame(frames, packet(from.v4, to.v4, i, 30), 0)
		}
		for cut := range frames {
			s := n.raw(from, to)
			for _, part := range [][]byte{frames[:cut], frames[cut:]} {
				if _, err := s.Write(part); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 3 {
				to.wantNumber(i)
			}
			_ = s.Close()
		}
	})
}

func TestBadFrameResetsStream(t *testing.T) {
	long := func(m, to *member) []byte {
		pkt := packet(m.v4, to.v4, 1, 100)
		return wire.AppendFrame(nil, pkt[:99], 0)
	}
	for name, bad := range map[string]func(m, to *member) []byte{
		"no packet":    func(_, _ *member) []byte { return []byte{0, 0} },
		"short packet": func(_, _ *member) []byte { return wire.AppendFrame(nil, make([]byte, 19), 0) },
		"not IP":       func(_, _ *member) []byte { return wire.AppendFrame(nil, make([]byte, 64), 0) },
		"cut packet":   long,
		"lost step": func(m, to *member) []byte {
			return append([]byte{0}, wire.AppendFrame(nil, packet(m.v4, to.v4, 1, 60), 0)...)
		},
		"IPv6 length": func(m, to *member) []byte {
			pkt := packet(m.v6, to.v6, 1, 60)
			binary.BigEndian.PutUint16(pkt[4:], 21)
			return wire.AppendFrame(nil, pkt, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, 2).start()
			from, to := n.members[0], n.members[1]
			s := n.raw(from, to)
			if _, err := s.Write(append(wire.AppendFrame(nil, packet(from.v4, to.v4, 5, 0), 0), bad(from, to)...)); err != nil {
				t.Fatal(err)
			}
			to.wantNumber(5) // what came before counts
			_, _ = s.Write(make([]byte, 1000))
			waitFor(t, func() bool { return to.dp.Stats().Resets == 1 })
			to.wantDrops(DropBadFrame, 1)
			wantEnded(t, s)
			from.dev.Inject(packet(from.v4, to.v4, 6, 0)) // the honest way still works
			to.wantNumber(6)
		})
	}
}

func TestStuckPeerBlocksNobody(t *testing.T) {
	n := newNetwork(t, 3)
	from, good, stuck := n.members[0], n.members[1], n.members[2]
	n.intercept = func(_, to *member, near, far *memStream) (Stream, *memStream, error) {
		if to == stuck {
			return near, nil, nil // nobody reads the far end
		}
		return near, far, nil
	}
	n.start()
	const count = 2000
	for i := range count {
		from.dev.Inject(packet(from.v4, stuck.v4, i, 1400))
		from.dev.Inject(packet(from.v4, good.v4, i, 100))
		good.wantNumber(i)
	}
	s := from.dp.Stats().Peers[stuck.id]
	if s.Path.Queued > maxQueue+reserve {
		t.Errorf("%d bytes wait for the stuck peer, more than %d", s.Path.Queued, maxQueue+reserve)
	}
	// One batch is on its way, one waits, all others are dropped.
	if least := uint64(count - 2*maxQueue/1400); s.Drops["queue_full"] < least {
		t.Errorf("drops %v, want at least %d as queue_full", s.Drops, least)
	}
	if g := from.dp.Stats().Peers[good.id]; len(g.Drops) != 0 {
		t.Errorf("drops of the good peer: %v", g.Drops)
	}
}

func TestBrokenStreamIsReplaced(t *testing.T) {
	n := newNetwork(t, 2).start()
	from, to := n.members[0], n.members[1]
	for round := range 3 {
		from.dev.Inject(packet(from.v4, to.v4, round, 0))
		to.wantNumber(round)
		n.breakAll()
		// The break is noticed without a packet.
		waitFor(t, func() bool {
			return !from.dp.Stats().Peers[to.id].Path.Up
		})
	}
	if s := from.dp.Stats(); s.Drops["link_lost"] != 0 {
		t.Errorf("packets were lost to find the stream broken: %v", s.Drops)
	}
}

func TestUndeliverable(t *testing.T) {
	nobody := netip.AddrFrom4([4]byte{10, 1, 1, 1})
	for name, c := range map[string]struct {
		pkt    func(a, b *member) []byte
		reason Reason
		answer bool
	}{
		"no member":         {func(a, _ *member) []byte { return packet(a.v4, nobody, 9, 0) }, DropNoRoute, true},
		"own address":       {func(a, _ *member) []byte { return packet(a.v4, a.v4, 9, 0) }, DropNoRoute, true},
		"not connected":     {func(a, b *member) []byte { return packet(a.v4, b.v4, 9, 0) }, DropNotConnected, true},
		"not connected v6":  {func(a, b *member) []byte { return packet(a.v6, b.v6, 9, 0) }, DropNotConnected, true},
		"foreign source":    {func(_, b *member) []byte { return packet(nobody, b.v4, 9, 0) }, DropLocalSource, true},
		"multicast":         {func(a, _ *member) []byte { return packet(a.v4, netip.MustParseAddr("224.0.0.251"), 9, 0) }, DropMulticast, false},
		"link-local":        {func(a, _ *member) []byte { return packet(a.v6, netip.MustParseAddr("fe80::1"), 9, 0) }, DropMulticast, false},
		"router solicits":   {func(a, _ *member) []byte { return packet(a.v6, netip.MustParseAddr("ff02::2"), 9, 0) }, DropMulticast, false},
		"half a packet":     {func(a, b *member) []byte { return packet(a.v4, b.v4, 9, 99)[:50] }, DropMalformed, false},
		"neither v4 nor v6": {func(_, _ *member) []byte { return make([]byte, 60) }, DropMalformed, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, 2)
			a, b := n.members[0], n.members[1]
			a.dp.PeerDown(b.id)
			n.start()
			pkt := c.pkt(a, b)
			a.dev.Inject(pkt)
			a.wantDrops(c.reason, 1)
			if c.answer {
				wantAnswer(t, a.next(), pkt)
			} else if len(a.dev.Out) != 0 {
				t.Error("it was answered")
			}
		})
	}
}

func TestPeerDownAndUp(t *testing.T) {
	n := newNetwork(t, 2).start()
	a, b := n.members[0], n.members[1]
	a.dev.Inject(packet(a.v4, b.v4, 1, 0))
	b.wantNumber(1)
	a.dp.PeerDown(b.id)
	a.dp.PeerDown(b.id)
	a.dp.PeerDown(identity.ID{99})
	if _, there := a.dp.Stats().Peers[b.id]; there {
		t.Error("the peer is still in the statistics")
	}
	a.dp.PeerUp(b.id)
	a.dp.PeerUp(b.id)
	a.dev.Inject(packet(a.v4, b.v4, 2, 0))
	b.wantNumber(2)
}

func TestUpAndDownUnderTraffic(t *testing.T) {
	n := newNetwork(t, 3).start()
	a, b, c := n.members[0], n.members[1], n.members[2]
	stop := make(chan struct{})
	for _, m := range n.members {
		n.running.Go(func() { // local programs
			for {
				select {
				case <-m.dev.Out:
				case <-stop:
					return
				}
			}
		})
	}
	n.running.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				a.dev.Inject(packet(a.v4, b.v4, i, 1000))
				b.dev.Inject(packet(b.v6, a.v6, i, 1000))
				a.dev.Inject(packet(a.v4, c.v4, i, 1000))
			}
		}
	})
	for range 500 {
		a.dp.PeerDown(b.id)
		_ = a.dp.Stats()
		a.dp.PeerUp(b.id)
		b.dp.PeerDown(a.id)
		b.dp.PeerUp(a.id)
	}
	before := c.dp.Stats().Peers[a.id].RxPackets
	waitFor(t, func() bool { return c.dp.Stats().Peers[a.id].RxPackets > before })
	close(stop)
}

// Two connections that come up at once carry a stream each, and which is the newer the
// far end cannot tell: both are read. Whoever opens more and more has the first ended.
func TestStreamsOfAPeer(t *testing.T) {
	n := newNetwork(t, 2).start()
	from, to := n.members[0], n.members[1]
	number := 0
	var streams []Stream
	send := func(s Stream) {
		t.Helper()
		if _, err := s.Write(wire.AppendFrame(nil, packet(from.v4, to.v4, number, 40), 0)); err != nil {
			t.Fatal(err)
		}
		to.wantNumber(number)
		number++
	}
	for range maxInbound {
		s := n.raw(from, to)
		send(s)
		streams = append(streams, s)
	}
	for _, s := range streams {
		send(s)
	}
	send(n.raw(from, to))
	wantEnded(t, streams[0])
	for _, s := range streams[1:] {
		send(s)
	}
}

// brokenDevice fails as a deleted interface does.
type brokenDevice struct{ tuntest.Device }

var errBroken = errors.New("interface is gone")

func (*brokenDevice) Read([]byte) (offload.Packet, error) { return offload.Packet{}, errBroken }

func TestRunReportsDeviceFailure(t *testing.T) {
	dev := &brokenDevice{Device: *tuntest.New("test", DefaultMTU, 1)}
	dp := New(Config{Device: dev})
	if err := dp.Run(context.Background()); !errors.Is(err, errBroken) {
		t.Errorf("run = %v, want the device's error", err)
	}
	// After its end, nothing starts any more.
	dp.PeerUp(identity.ID{1})
	near, far := pipe()
	dp.HandleStream(identity.ID{1}, far)
	if _, err := near.Write([]byte{1}); err == nil {
		t.Error("a stream is accepted after the end")
	}
}

// refusingDevice takes no packet.
type refusingDevice struct{ *tuntest.Device }

func (d refusingDevice) Write(offload.Header, [][]byte) error {
	return fmt.Errorf("write: %w", os.ErrInvalid)
}

func TestKernelRefusalIsCounted(t *testing.T) {
	n := newNetwork(t, 2)
	a, b := n.members[0], n.members[1]
	b.dp.dev = refusingDevice{b.dev}
	n.start()
	a.dev.Inject(packet(a.v4, b.v4, 1, 0))
	b.wantDrops(DropDevice, 1)
	a.dev.Inject(packet(a.v4, b.v4, 2, 0)) // and the stream goes on
	b.wantDrops(DropDevice, 2)
}

func TestMTU(t *testing.T) {
	for override, want := range map[int]int{0: DefaultMTU, 1280: 1280, 9000: 9000, 100: MinMTU, 20000: MaxMTU, -1: MinMTU} {
		if got := MTU(override); got != want {
			t.Errorf("MTU(%d) = %d, want %d", override, got, want)
		}
	}
}
