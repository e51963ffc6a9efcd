package mesh

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kairos-io/kairos/overlay/socket"
)

// slow is a socket whose Receiver waits until it is told to go on.
type slow struct {
	*socket.Socket
	goOn, heard chan struct{}
}

func newSlow(t *testing.T) *slow {
	t.Helper()
	s := &slow{goOn: make(chan struct{}), heard: make(chan struct{}, 1)}
	var err error
	s.Socket, err = socket.Listen("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, func(socket.Source, [][]byte) {
		<-s.goOn
		select {
		case s.heard <- struct{}{}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	raw, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What the kernel throws away is counted, over all sockets.
func TestKernelDrops(t *testing.T) {
	sockets := []*slow{newSlow(t), newSlow(t)}
	u := &underlay{sockets: []*socket.Socket{sockets[0].Socket, sockets[1].Socket}}
	dropped := func() uint64 {
		var s Stats
		u.socketStats(&s)
		return s.KernelDrops
	}
	if drops := dropped(); drops != 0 {
		t.Errorf("%d drops at the start", drops)
	}
	var before uint64
	for _, s := range sockets {
		s.flood(t)
		drops := dropped()
		if again := dropped(); drops <= before || drops >= before+1000 || again != drops {
			t.Errorf("%d drops after %d, and then %d", drops, before, again)
		}
		before = drops
	}
}

// flood sends 1000 packets to a socket that nobody reads, and has it read then: the
// kernel tells its drops with a packet that came after them.
func (s *slow) flood(t *testing.T) {
	t.Helper()
	c, err := net.Dial("udp4", s.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	packet := append([]byte{0x01}, make([]byte, 100)...)
	for range 1000 {
		if _, err := c.Write(packet); err != nil {
			t.Fatal(err)
		}
	}
	close(s.goOn)
	for end := time.After(patience); s.Stats().KernelDrops == 0; {
		if _, err := c.Write(packet); err != nil {
			t.Fatal(err)
		}
		select {
		case <-s.heard:
		case <-end:
			t.Fatal("no drops are told")
		}
	}
}
