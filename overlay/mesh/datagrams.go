package mesh

import (
	"errors"
	"net/netip"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/socket"
)

// ErrNoSocket says that the socket which datagrams are to leave from is closed.
var ErrNoSocket = errors.New("the socket is closed")

// HandleDatagrams sets who gets datagrams that are not QUIC's, from anybody. It runs
// on the goroutines that read the sockets. Before it is set they are dropped.
func (m *Mesh) HandleDatagrams(receive socket.Receiver) { m.datagrams.Store(&receive) }

func (m *Mesh) receive(from socket.Source, packets [][]byte) {
	if f := m.datagrams.Load(); f != nil {
		(*f)(from, packets)
	}
}

// Sources returns where datagrams of a peer come from if they take the ways of its
// connections over UDP, the best first. PathsChanged tells when to ask again.
func (m *Mesh) Sources(id identity.ID) []socket.Source {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[id]
	if p == nil {
		return nil
	}
	var out []socket.Source
	add := func(c *conn) {
		s := c.raw.Socket()
		if s == nil { // over TCP
			return
		}
		from := socket.Source{Socket: s.Number(), Local: c.raw.Local().Addr(), Remote: c.raw.Remote()}
		if from.Local.IsUnspecified() {
			from.Local = netip.Addr{}
		}
		out = append(out, from)
	}
	add(p.best)
	for _, c := range p.conns {
		if c != p.best {
			add(c)
		}
	}
	return out
}

// Elsewhere returns where datagrams of a peer may come from besides: from where else it
// is said to be, to any address of this machine. Nothing there is proven.
func (m *Mesh) Elsewhere(id identity.ID) []socket.Source {
	m.mu.Lock()
	addrs := m.sched.Addrs(m.now(), id)
	m.mu.Unlock()
	sockets := m.under.Sockets()
	var out []socket.Source
	for _, a := range addrs {
		for _, s := range sockets {
			if s.Is4() == a.Addr().Is4() {
				out = append(out, socket.Source{Socket: s.Number(), Remote: a})
			}
		}
	}
	return out
}

// Sender returns a new sender of datagrams to where those of a Source come from:
// ErrNoSocket.
func (m *Mesh) Sender(to socket.Source) (*socket.Sender, error) {
	for _, s := range m.under.Sockets() {
		if s.Number() == to.Socket {
			return s.NewSender(to.Local, to.Remote)
		}
	}
	return nil, ErrNoSocket
}
