package mesh

import (
	"errors"
	"net/netip"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/socket"
)

// ErrNoUDP says that no connection to a peer is over UDP.
var ErrNoUDP = errors.New("peer is not connected over UDP")

// HandleDatagrams sets who gets datagrams that are not QUIC's, from anybody. It runs
// on the goroutines that read the sockets. Before it is set they are dropped.
func (m *Mesh) HandleDatagrams(receive socket.Receiver) { m.datagrams.Store(&receive) }

func (m *Mesh) receive(from netip.AddrPort, packets [][]byte) {
	if f := m.datagrams.Load(); f != nil {
		(*f)(from, packets)
	}
}

// PathInfo is where a connection over UDP goes: datagrams get through there as well.
type PathInfo struct {
	Local, Remote netip.AddrPort // as underlay.Conn has them
	Socket        *socket.Socket
}

// Paths returns where the connections to a peer go that are over UDP, the best first.
// PathsChanged tells when to ask again.
func (m *Mesh) Paths(id identity.ID) []PathInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[id]
	if p == nil {
		return nil
	}
	var out []PathInfo
	add := func(c *conn) {
		if s := c.raw.Socket(); s != nil {
			out = append(out, PathInfo{Local: c.raw.Local(), Remote: c.raw.Remote(), Socket: s})
		}
	}
	add(p.best)
	for _, c := range p.conns {
		if c != p.best {
			add(c)
		}
	}
	return out
}

// Sender returns a new way to send datagrams to where the best connection to the
// peer goes, out of the socket that it uses: ErrNotConnected, ErrNoUDP.
func (m *Mesh) Sender(id identity.ID) (*socket.Sender, error) {
	c := m.best(id)
	if c == nil {
		return nil, ErrNotConnected
	}
	s := c.raw.Socket()
	if s == nil {
		return nil, ErrNoUDP
	}
	return s.NewSender(c.raw.Remote())
}
