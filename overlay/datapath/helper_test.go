package datapath

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/route"
	"github.com/kairos-io/kairos/overlay/secret"
	"github.com/kairos-io/kairos/overlay/tun/tuntest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline is how long a test waits for what must happen.
const deadline = 10 * time.Second

// member is one simulated node: a Datapath between a channel device and in-memory streams.
type member struct {
	t      testing.TB
	id     identity.ID
	v4, v6 netip.Addr
	dev    *tuntest.Device
	dp     *Datapath
}

// network connects members by in-memory streams.
type network struct {
	t       testing.TB
	members []*member
	running sync.WaitGroup

	mu      sync.Mutex
	streams []*memStream
	// intercept may replace what an Open gives; the second stream is the far end, nil if used up.
	intercept func(from, to *member, near, far *memStream) (Stream, *memStream, error)
}

// memStream is one end of net.Pipe as a Stream.
type memStream struct{ net.Conn }

func (s *memStream) Reset() error { return s.Close() }

func newNetwork(t testing.TB, count int) *network {
	n := &network{t: t}
	n.add(count, func(*member, *Config) {})
	return n
}

// add makes members, with what more of the Config sets.
func (n *network) add(count int, more func(*member, *Config)) {
	t := n.t
	overlay, err := identity.NetworkOf(secret.NewKey(sha256.Sum256([]byte("test"))), netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	var entries []route.Entry
	for i := range count {
		id := identity.ID{byte(i + 1)}
		m := &member{t: t, id: id, v4: overlay.V4Addr(id, 0), v6: overlay.V6Addr(id)}
		m.dev = tuntest.New("test", DefaultMTU, 1024)
		config := Config{Self: id, Device: m.dev, Opener: n.opener(m), Log: slog.New(slog.DiscardHandler)}
		more(m, &config)
		m.dp = New(config)
		n.members = append(n.members, m)
		entries = append(entries, route.Entry{ID: id, Addrs: []netip.Addr{m.v4, m.v6}})
	}
	for _, m := range n.members {
		m.dp.SetRoutes(route.Build(route.Input{Self: m.id, Network: overlay, Members: entries}))
		for _, other := range n.members {
			m.dp.PeerUp(other.id)
		}
	}
}

// start runs all members until the end of the test.
func (n *network) start() *network {
	ctx, cancel := context.WithCancel(context.Background())
	for _, m := range n.members {
		n.running.Go(func() {
			if err := m.dp.Run(ctx); err != nil {
				n.t.Errorf("run: %v", err)
			}
		})
	}
	n.t.Cleanup(func() {
		cancel()
		n.running.Wait()
	})
	return n
}

func (n *network) opener(from *member) Opener {
	return OpenerFunc(func(_ context.Context, id identity.ID) (Stream, error) {
		for _, to := range n.members {
			if to.id == id {
				return n.open(from, to)
			}
		}
		return nil, errors.New("no such member")
	})
}

func (n *network) open(from, to *member) (Stream, error) {
	a, b := net.Pipe()
	near, far := &memStream{a}, &memStream{b}
	var use Stream = near
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.intercept != nil {
		var err error
		if use, far, err = n.intercept(from, to, near, far); err != nil {
			return nil, err
		}
	}
	n.streams = append(n.streams, near)
	if far != nil {
		n.running.Go(func() { to.dp.HandleStream(from.id, far) })
	}
	return use, nil
}

// breakAll resets every stream there was.
func (n *network) breakAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.streams {
		_ = s.Close()
	}
}

// raw opens a stream of from to to that the test writes on.
func (n *network) raw(from, to *member) Stream {
	s, err := n.open(from, to)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := s.(*memStream).SetDeadline(time.Now().Add(deadline)); err != nil {
		n.t.Fatal(err)
	}
	return s
}

// wantEnded waits for the end of a stream on which the far end says nothing.
func wantEnded(t *testing.T, s Stream) {
	t.Helper()
	if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the stream is still open: %v", err)
	}
}

// packet makes an IP packet with a number in it. The number is what tests compare.
func packet(src, dst netip.Addr, number, size int) []byte {
	if src.Is4() {
		pkt := make([]byte, max(size, minIPv4+4))
		pkt[0], pkt[8], pkt[9] = 0x45, 64, 17
		binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
		copy(pkt[12:], src.AsSlice())
		copy(pkt[16:], dst.AsSlice())
		binary.BigEndian.PutUint32(pkt[minIPv4:], uint32(number))
		return pkt
	}
	pkt := make([]byte, max(size, minIPv6+4))
	pkt[0], pkt[6], pkt[7] = 0x60, 17, 64
	binary.BigEndian.PutUint16(pkt[4:], uint16(len(pkt)-minIPv6))
	copy(pkt[8:], src.AsSlice())
	copy(pkt[24:], dst.AsSlice())
	binary.BigEndian.PutUint32(pkt[minIPv6:], uint32(number))
	return pkt
}

func number(pkt []byte) int {
	at := minIPv4
	if pkt[0]>>4 == 6 {
		at = minIPv6
	}
	return int(binary.BigEndian.Uint32(pkt[at:]))
}

// next waits for a packet that the member's local programs get.
func (m *member) next() []byte {
	m.t.Helper()
	select {
	case pkt := <-m.dev.Out:
		return pkt
	case <-time.After(deadline):
		m.t.Fatalf("no packet; drops %v", m.dp.Stats().Drops)
		return nil
	}
}

func (m *member) wantNumber(want int) {
	m.t.Helper()
	if got := number(m.next()); got != want {
		m.t.Fatalf("packet %d arrives, want %d", got, want)
	}
}

// wantDrops waits until the counter has the value, and fails if it gets beyond.
func (m *member) wantDrops(r Reason, want uint64) {
	m.t.Helper()
	waitFor(m.t, func() bool { return m.dp.Stats().Drops[r.String()] >= want })
	if got := m.dp.Stats().Drops[r.String()]; got != want {
		m.t.Fatalf("%d packets dropped as %v, want %d", got, r, want)
	}
}

// waitFor polls what has no event to wait for: counters.
func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(deadline)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it does not come true")
		}
	}
}

func pipe() (near, far *memStream) {
	a, b := net.Pipe()
	return &memStream{a}, &memStream{b}
}

func (d *Datapath) peerOf(id identity.ID) *peer { return (*d.peers.Load())[id] }
