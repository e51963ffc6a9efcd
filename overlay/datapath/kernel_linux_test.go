package datapath

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kairos-io/kairos/overlay/tun"
)

// space is a network namespace: a thread in it that runs what it is given.
type space struct{ do chan func() }

// newSpace needs root: elsewhere the test says that it did not run.
func newSpace(t *testing.T) *space {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: needs root for network namespaces and TUN devices")
	}
	s := &space{do: make(chan func())}
	t.Cleanup(func() { close(s.do) })
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the namespace ends with the thread
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range s.do {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("unshare: %v", err)
	}
	return s
}

func (s *space) run(f func()) {
	done := make(chan struct{})
	s.do <- func() {
		defer close(done)
		f()
	}
	<-done
}

// kernelNetwork is newNetwork with two kernels' TCP/IP at the ends and TCP
// between them:
//
//	namespace A                                                   namespace B
//	kernel - TUN - Datapath - one TCP stream each way - Datapath - TUN - kernel
func kernelNetwork(t *testing.T) (*network, [2]*space) {
	spaces := [2]*space{newSpace(t), newSpace(t)}
	n := newNetwork(t, 2)
	for i, m := range n.members {
		cfg := tun.Config{Name: "kt0", MTU: DefaultMTU, Addrs: []netip.Prefix{
			netip.PrefixFrom(m.v4, 16), netip.PrefixFrom(m.v6, 64)}}
		var dev *tun.Interface
		var err error
		spaces[i].run(func() { dev, err = tun.Open(cfg) })
		if err != nil {
			t.Fatal(err)
		}
		old := m.dp
		m.dp = New(Config{Self: m.id, Device: dev, Opener: n.opener(m), Log: old.log})
		m.dp.SetRoutes(old.routes.Load())
		old.shutdown()
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	n.intercept = func(_, _ *member, near, far *memStream) (Stream, *memStream, error) {
		_, _ = near.Close(), far.Close()
		out, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			return nil, nil, err
		}
		in, err := ln.Accept()
		if err != nil {
			return nil, nil, errors.Join(err, out.Close())
		}
		return &memStream{out}, &memStream{in}, nil
	}
	n.start()
	n.members[0].dp.PeerUp(n.members[1].id)
	n.members[1].dp.PeerUp(n.members[0].id)
	return n, spaces
}

func TestKernelsTalkTCP(t *testing.T) {
	n, spaces := kernelNetwork(t)
	a, b := n.members[0], n.members[1]
	for name, c := range map[string]struct {
		addr     netip.Addr
		from, to int
	}{
		"IPv4":      {b.v4, 0, 1},
		"IPv4 back": {a.v4, 1, 0},
		"IPv6":      {b.v6, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			server, client := connect(t, spaces[c.to], spaces[c.from], c.addr)
			const size = 20 << 20
			start := time.Now()
			sent, got := sha256.New(), sha256.New()
			var wg sync.WaitGroup
			wg.Go(func() {
				src := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), size), sent)
				if _, err := io.Copy(client, src); err != nil {
					t.Errorf("send: %v", err)
				}
				_ = client.Close()
			})
			count, err := io.Copy(got, server)
			wg.Wait()
			if err != nil || count != size || [32]byte(sent.Sum(nil)) != [32]byte(got.Sum(nil)) {
				t.Errorf("%d of %d bytes, error %v, equal %v", count, size, err, [32]byte(sent.Sum(nil)) == [32]byte(got.Sum(nil)))
			}
			t.Logf("RESULT tcp %s: %.0f Mbit/s", name, size*8/1e6/time.Since(start).Seconds())
		})
	}
	for _, m := range n.members {
		s := m.dp.Stats()
		for _, r := range []Reason{DropBadFrame, DropSpoofed, DropNotOurs, DropDevice, DropLinkLost, DropLocalSource, DropMalformed} {
			if s.Drops[r.String()] != 0 {
				t.Errorf("drops: %v", s.Drops)
			}
		}
	}
}

// connect makes a TCP connection between two namespaces.
func connect(t *testing.T, to, from *space, addr netip.Addr) (server, client net.Conn) {
	t.Helper()
	var ln net.Listener
	var err error
	to.run(func() { ln, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	from.run(func() { client, err = net.DialTimeout("tcp", ln.Addr().String(), deadline) })
	if err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = server.Close(), client.Close() })
	for _, c := range []net.Conn{server, client} {
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	return server, client
}

func TestKernelHearsThatPeerIsGone(t *testing.T) {
	n, spaces := kernelNetwork(t)
	a, b := n.members[0], n.members[1]
	a.dp.PeerDown(b.id)
	for name, addr := range map[string]netip.Addr{"IPv4": b.v4, "IPv6": b.v6, "no member": netip.AddrFrom4([4]byte{a.v4.As4()[0], a.v4.As4()[1], 7, 7})} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			var err error
			spaces[0].run(func() { _, err = net.DialTimeout("tcp", netip.AddrPortFrom(addr, 6443).String(), deadline) })
			// Normally at once. A kernel that is busy with the socket when the
			// answer to its first packet comes heeds that to the second, a second
			// later. Without an answer the error would be a timeout.
			if !errors.Is(err, syscall.EHOSTUNREACH) {
				t.Errorf("dial fails after %v with %v, want no route to host", time.Since(start), err)
			}
		})
	}
}
