package mesh

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/kairos-io/kairos/overlay/socket"
)

// What the kernel throws away is counted, over all sockets.
func TestKernelDrops(t *testing.T) {
	u := &underlay{}
	for range 2 {
		s, err := socket.Listen("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, func(netip.AddrPort, [][]byte) {})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		if err := s.SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		u.sockets = append(u.sockets, s)
	}
	if drops, _ := u.socketStats(); drops != 0 {
		t.Errorf("%d drops at the start", drops)
	}
	var before uint64
	for _, s := range u.sockets {
		flood(t, s)
		drops, _ := u.socketStats()
		if again, _ := u.socketStats(); drops <= before || drops >= before+1000 || again != drops {
			t.Errorf("%d drops after %d, and then %d", drops, before, again)
		}
		before = drops
	}
}

// flood sends 1000 packets to a socket that nobody reads, and reads it then: the
// kernel tells its drops with a packet that came after them.
func flood(t *testing.T, s *socket.Socket) {
	t.Helper()
	c, err := net.Dial("udp4", s.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	packet := append([]byte{0x40}, make([]byte, 100)...)
	for range 1000 {
		if _, err := c.Write(packet); err != nil {
			t.Fatal(err)
		}
	}
	ms := make([]ipv4.Message, 8)
	for i := range ms {
		ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 1500)}, make([]byte, 128)
	}
	for end := time.Now().Add(patience); s.Stats().KernelDrops == 0; {
		if err := s.SetReadDeadline(end); err != nil {
			t.Fatal(err)
		}
		if _, err := s.ReadBatch(ms, 0); err != nil {
			t.Fatalf("no drops are told: %v", err)
		}
		if _, err := c.Write(packet); err != nil {
			t.Fatal(err)
		}
	}
}
