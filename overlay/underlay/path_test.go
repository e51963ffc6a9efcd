package underlay

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/socket"
)

// narrow is a way between two underlays on which larger packets than it takes are lost,
// without a word.
type narrow struct {
	at   netip.AddrPort
	mtu  atomic.Int64 // bytes of an IP packet
	lost atomic.Int64
}

// newNarrow stands before an underlay that listens on loopback.
func newNarrow(t *testing.T, to netip.AddrPort, mtu int) *narrow {
	t.Helper()
	outside, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Addr(), 0)))
	if err != nil {
		t.Fatal(err)
	}
	inside, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	n := &narrow{at: addrPortOf(outside.LocalAddr())}
	n.mtu.Store(int64(mtu))
	headers := 8 + 20
	if to.Addr().Is6() {
		headers = 8 + 40
	}
	var from atomic.Pointer[net.UDPAddr]
	var work sync.WaitGroup
	t.Cleanup(func() { _, _ = outside.Close(), inside.Close(); work.Wait() })
	carry := func(read func([]byte) (int, error), write func([]byte) (int, error)) {
		buf := make([]byte, 1<<16)
		for {
			size, err := read(buf)
			switch {
			case err != nil && errors.Is(err, net.ErrClosed):
				return
			case err != nil: // of an earlier packet
			case size+headers > int(n.mtu.Load()):
				n.lost.Add(1)
			default:
				_, _ = write(buf[:size]) // a lost packet is what this is about
			}
		}
	}
	work.Go(func() {
		carry(func(b []byte) (int, error) {
			size, addr, err := outside.ReadFromUDP(b)
			if err == nil {
				from.Store(addr)
			}
			return size, err
		}, inside.Write)
	})
	work.Go(func() {
		carry(inside.Read, func(b []byte) (int, error) { return outside.WriteToUDP(b, from.Load()) })
	})
	return n
}

// Where a path takes 1280 bytes, and nobody says so, QUIC begins all the same, and goes
// on where it shrinks to that later (fault T14: it took 35 s to give QUIC up).
func TestNarrowPath(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		for name, before := range map[string]int{"from the start": 1280, "later": 1500} {
			t.Run(listen+" "+name, func(t *testing.T) {
				at := []netip.AddrPort{netip.MustParseAddrPort(listen)}
				a, b := start(t, Config{Listen: at}), start(t, Config{Listen: at})
				way := newNarrow(t, b.Bound()[0], before)
				near, err := a.Dial(patient(t), QUIC, way.at, b.id())
				if err != nil {
					t.Fatal(err)
				}
				far, err := b.Accept(patient(t))
				if err != nil {
					t.Fatal(err)
				}
				echo(t, near, far, 1<<20)
				way.mtu.Store(1280)
				began := time.Now()
				echo(t, near, far, 1<<20)
				t.Logf("RESULT 1 MiB there and back over a path of 1280 bytes in %s, %d packets lost",
					time.Since(began).Round(time.Millisecond), way.lost.Load())
			})
		}
	}
}

// A peer that restarts tells those who still write to it at once that their connections
// are gone: its keys for that follow from its identity.
func TestRestart(t *testing.T) {
	key := testKey(t)
	a := start(t, Config{})
	b, err := Open(Config{Key: key, Listen: loopback})
	if err != nil {
		t.Fatal(err)
	}
	near, _ := connect(t, QUIC, a, b)
	at := b.Bound()
	kill(t, b)
	start(t, Config{Key: key, Listen: at})
	s, err := near.OpenStream(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := s.SetReadDeadline(began.Add(patience)); err != nil {
		t.Fatal(err)
	}
	// A reset answers packets that are larger than itself.
	if _, err := s.Write(make([]byte, 200)); err != nil {
		t.Fatal(err)
	}
	// Without a word of the peer that takes 30 s.
	if _, err := s.Read(make([]byte, 1)); err == nil || time.Since(began) >= patience {
		t.Errorf("a stream outlives the peer's process: %v", err)
	}
	t.Logf("noticed after %s", time.Since(began))
	if r := near.CloseReason(); r != link.ReasonNone {
		t.Errorf("a process that was killed said %s", r)
	}
}

// kill ends an underlay without a word to anybody, and then cleans up.
func kill(t *testing.T, u *Underlay) {
	t.Helper()
	for _, e := range u.endpoints {
		if err := e.close(); err != nil {
			t.Fatal(err)
		}
	}
	_ = u.Close() // whose sockets are closed already
}

// Datagrams of others go to the receiver, and the counters of a socket that is gone stay.
func TestDatagrams(t *testing.T) {
	got := make(chan netip.AddrPort, 1)
	b := start(t, Config{Datagrams: func(from socket.Source, packets [][]byte) {
		if len(packets) == 1 && string(packets[0]) == "\x01hello" {
			got <- from.Remote
		}
	}})
	a := start(t, Config{})
	near, _ := connect(t, QUIC, a, b)
	sender, err := near.Socket().NewSender(netip.Addr{}, near.Remote())
	if err != nil {
		t.Fatal(err)
	}
	if err := sender.Offer([]byte("\x01hello")); err != nil {
		t.Fatal(err)
	}
	select {
	case from := <-got:
		if from != a.Bound()[0] {
			t.Errorf("from %s, want %s", from, a.Bound()[0])
		}
	case <-time.After(patience):
		t.Error("nothing came")
	}
	if s := b.Stats(); s.KernelDrops != 0 || s.QUICDrops != 0 || s.Refused != 0 {
		t.Errorf("counted %+v", s)
	}
}

// A tally goes on where its counter goes round.
func TestTally(t *testing.T) {
	var c tally
	for _, step := range []struct {
		value uint32
		want  uint64
	}{{0, 0}, {5, 5}, {5, 5}, {1 << 31, 1 << 31}, {1<<32 - 1, 1<<32 - 1}, {3, 1<<32 + 3}, {2, 1<<32 + 3}} {
		if got := c.count(step.value); got != step.want {
			t.Errorf("at %d: %d, want %d", step.value, got, step.want)
		}
	}
}
