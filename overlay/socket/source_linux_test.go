package socket

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listenAt opens a socket on an address of the loopback interface's.
func listenAt(t *testing.T, network, addr string, receive Receiver) *Socket {
	t.Helper()
	s, err := Listen(network, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)), receive)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// heard is a Receiver that keeps where packets came from.
func heard() (Receiver, chan Source) {
	from := make(chan Source, 64)
	return func(s Source, packets [][]byte) {
		for range packets {
			from <- s
		}
	}, from
}

func await(t *testing.T, from chan Source) Source {
	t.Helper()
	select {
	case s := <-from:
		return s
	case <-time.After(patience):
		t.Fatal("no packet")
		return Source{}
	}
}

// On a host with several addresses packets leave from the one that is asked for, and
// the receiver is told both ends: it can answer from the address that was spoken to.
func TestSourceOfDatagrams(t *testing.T) {
	for name, c := range map[string]struct{ network, hub, peer, address string }{
		"all addresses of IPv4": {"udp4", "0.0.0.0:0", "127.0.0.1:0", "127.0.0.2"},
		"one address of IPv4":   {"udp4", "127.0.0.2:0", "127.0.0.1:0", "127.0.0.2"},
		"all addresses of IPv6": {"udp6", "[::]:0", "[::1]:0", "::1"},
	} {
		t.Run(name, func(t *testing.T) {
			atHub, fromPeer := heard()
			atPeer, fromHub := heard()
			hub, peer := listenAt(t, c.network, c.hub, atHub), listenAt(t, c.network, c.peer, atPeer)
			address := netip.MustParseAddr(c.address)
			port := addrOf(hub).Port()
			ask, err := peer.NewSender(netip.Addr{}, netip.AddrPortFrom(address, port))
			if err != nil {
				t.Fatal(err)
			}
			if err := ask.Offer(data(1, 100)); err != nil {
				t.Fatal(err)
			}
			got := await(t, fromPeer)
			if got != (Source{hub.Number(), address, addrOf(peer)}) {
				t.Fatalf("the hub hears from %+v", got)
			}
			answer, err := hub.NewSender(got.Local, got.Remote)
			if err != nil {
				t.Fatal(err)
			}
			for _, run := range [][][]byte{{data(1, 100)}, slices.Repeat([][]byte{data(1, 1000)}, 5)} { // alone and by UDP_SEGMENT
				if n, err := answer.Send(run); n != len(run) || err != nil {
					t.Fatalf("sent %d: %v", n, err)
				}
				for range run {
					if got := await(t, fromHub); got.Remote != netip.AddrPortFrom(address, port) {
						t.Errorf("the datagram comes from %v, and the peer spoke to %v", got.Remote, address)
					}
				}
			}
			if hub.Stats().Unsegmented {
				t.Error("it is taken for a lack of segmentation")
			}
		})
	}
}

// An address that the machine does not have any more refuses packets at once, and is
// not taken for a lack of segmentation.
func TestSourceThatIsGone(t *testing.T) {
	s := listenAt(t, "udp4", "0.0.0.0:0", nil)
	w, err := s.NewSender(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddrPort("127.0.0.1:9"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 3} {
		if sent, err := w.Send(slices.Repeat([][]byte{data(1, 100)}, n)); sent != 0 || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("%d packets: sent %d, %v", n, sent, err)
		}
	}
	if s.Stats().Unsegmented {
		t.Error("it is taken for a lack of segmentation")
	}
	if _, err := s.NewSender(netip.MustParseAddr("::1"), netip.MustParseAddrPort("127.0.0.1:9")); err == nil {
		t.Error("an IPv4 socket sends from IPv6")
	}
}

// Sockets have numbers of their own; one that is closed says so, and holds no buffers.
func TestClosedSocket(t *testing.T) {
	a, b := listenAt(t, "udp4", "127.0.0.1:0", nil), listenAt(t, "udp4", "127.0.0.1:0", nil)
	if a.Number() == b.Number() || a.Number() == 0 {
		t.Errorf("numbers %d and %d", a.Number(), b.Number())
	}
	if a.Closed() {
		t.Error("it is closed already")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if !a.Closed() || b.Closed() || a.in != nil || a.quic.ring != nil {
		t.Errorf("closed %v, buffers %v %d", a.Closed(), a.in != nil, len(a.quic.ring))
	}
}
