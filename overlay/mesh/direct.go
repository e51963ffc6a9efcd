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

func (m *Mesh) receive(from socket.Source, packets [][]byte) {
	if f := m.datagrams.Load(); f != nil {
		(*f)(from, packets)
	}
}

// Source is where datagrams of the peer come from if they take the way of its best
// connection: ErrNotConnected, ErrNotDirect.
func (m *Mesh) Source(peer identity.ID) (socket.Source, error) {
	c := m.best(peer)
	if c == nil {
		return socket.Source{}, ErrNotConnected
	}
	if c.transport != quicName {
		return socket.Source{}, ErrNotDirect
	}
	local := endOf(c.raw.LocalMultiaddr())
	s := m.under.socketOf(local, c.remote)
	if s == nil {
		return socket.Source{}, ErrNotDirect
	}
	from := socket.Source{Socket: s.Number(), Local: local.Addr(), Remote: c.remote}
	if from.Local.IsUnspecified() {
		from.Local = netip.Addr{}
	}
	return from, nil
}

// Sender returns a new sender of datagrams to where those of a Source come from:
// ErrNotDirect where its socket is closed.
func (m *Mesh) Sender(to socket.Source) (*socket.Sender, error) {
	for _, s := range m.under.open() {
		if s.Number() == to.Socket {
			return s.NewSender(to.Local, to.Remote)
		}
	}
	return nil, ErrNotDirect
}

// open are the sockets that quicreuse has not closed meanwhile. What is closed is
// forgotten.
func (u *underlay) open() []*socket.Socket {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sockets = slices.DeleteFunc(u.sockets, (*socket.Socket).Closed)
	return slices.Clone(u.sockets)
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

// socketOf finds the socket of a connection by its address.
func (u *underlay) socketOf(local, remote netip.AddrPort) *socket.Socket {
	for _, s := range u.open() {
		at := addrPortOf(s.LocalAddr())
		if at.Port() == local.Port() && at.Addr().Is4() == remote.Addr().Unmap().Is4() &&
			(at.Addr() == local.Addr() || at.Addr().IsUnspecified() || local.Addr().IsUnspecified()) {
			return s
		}
	}
	return nil
}

// socketStats sums up into s what happened on the sockets.
func (u *underlay) socketStats(s *Stats) {
	sockets := u.open()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, socket := range sockets {
		stats := socket.Stats()
		u.drops.add(int(socket.Number()), stats.KernelDrops)
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
	last map[int]uint32
}

// add takes what the counter with the number i says now.
func (t *tally) add(i int, value uint32) {
	if t.last == nil {
		t.last = map[int]uint32{}
	}
	if more := int32(value - t.last[i]); more > 0 {
		t.sum, t.last[i] = t.sum+uint64(more), value
	}
}
