package mesh

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/socket"
)

// ErrNotDirect says that the connection to a peer is not over UDP.
var ErrNotDirect = errors.New("peer is not connected over UDP")

// HandleDatagrams sets who gets datagrams that are not QUIC's, from anybody. It runs
// on the goroutines that read the sockets. Before it is set they are dropped.
func (m *Mesh) HandleDatagrams(receive socket.Receiver) { m.datagrams.Store(&receive) }

func (m *Mesh) receive(from netip.AddrPort, packets [][]byte) {
	if f := m.datagrams.Load(); f != nil {
		(*f)(from, packets)
	}
}

// Sender returns a new way to send datagrams to where the best connection to the
// peer goes, out of the socket that it uses: ErrNotConnected, ErrNotDirect.
func (m *Mesh) Sender(peer identity.ID) (*socket.Sender, error) {
	c := m.best(peer)
	if c == nil {
		return nil, ErrNotConnected
	}
	if c.transport != quicName {
		return nil, ErrNotDirect
	}
	s := m.under.socketOf(endOf(c.raw.LocalMultiaddr()), c.remote)
	if s == nil {
		return nil, ErrNotDirect
	}
	return s.NewSender(c.remote)
}

// listenUDP opens the sockets of QUIC.
func (u *underlay) listenUDP(m *Mesh, network string, addr *net.UDPAddr) (net.PacketConn, error) {
	s, err := socket.Listen(network, addr, m.receive)
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sockets = append(u.sockets, s)
	return s, nil
}

// socketOf finds the socket of a connection by its port and family.
func (u *underlay) socketOf(local, remote netip.AddrPort) *socket.Socket {
	u.mu.Lock()
	defer u.mu.Unlock()
	i := slices.IndexFunc(u.sockets, func(s *socket.Socket) bool {
		at := addrPortOf(s.LocalAddr())
		return at.Port() == local.Port() && at.Addr().Unmap().Is4() == remote.Addr().Unmap().Is4()
	})
	if i < 0 {
		return nil
	}
	return u.sockets[i]
}

// socketStats sums up into s what happened on the sockets.
func (u *underlay) socketStats(s *Stats) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, socket := range u.sockets {
		stats := socket.Stats()
		u.drops.add(i, stats.KernelDrops)
		s.QUICDrops += stats.QUICDrops
		if stats.Unsegmented {
			s.Unsegmented++
		}
	}
	s.KernelDrops = u.drops.sum
}

// tally makes one counter that only grows of several that count modulo 2^32. They
// must be added before they have gone half of the way round.
type tally struct {
	sum  uint64
	last []uint32
}

// add takes what the counter with the number i says now.
func (t *tally) add(i int, value uint32) {
	for len(t.last) <= i {
		t.last = append(t.last, 0)
	}
	if more := int32(value - t.last[i]); more > 0 {
		t.sum, t.last[i] = t.sum+uint64(more), value
	}
}
