package mesh

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/dial"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/underlay"
)

// peer is a connected peer: it has at least one connection. All are of the same run.
type peer struct {
	id    identity.ID
	since time.Time
	conns []*conn
	best  *conn
	calls int // connections of other runs that wait for their verdict
}

// PeerInfo is one connected peer.
type PeerInfo struct {
	ID        identity.ID
	Transport string         // "quic" or "tcp"
	Local     netip.AddrPort // of the best connection; see underlay.Conn.Local
	Remote    netip.AddrPort // of the same
	RTT       time.Duration  // last measured round trip; at most a beat old on an idle connection
	Since     time.Time      // of the peer, over all its connections
	Heard     time.Duration  // since the last byte from it
}

// Peers returns the connected peers, sorted by ID.
func (m *Mesh) Peers() []PeerInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]PeerInfo, 0, len(m.peers))
	for _, p := range m.peers {
		c := p.best
		out = append(out, PeerInfo{
			ID: p.id, Transport: c.raw.Transport().String(), Local: c.raw.Local(), Remote: c.raw.Remote(),
			RTT: time.Duration(c.rtt.Load()), Since: p.since, Heard: c.silence(),
		})
	}
	slices.SortFunc(out, func(a, b PeerInfo) int { return a.ID.Compare(b.ID) })
	return out
}

// better reports whether a is to be kept rather than b. Both ends of the two
// connections come to the same answer, unless one doubts a connection.
func better(a, b *conn) bool {
	if a.doubted != b.doubted {
		return b.doubted
	}
	if ta, tb := a.raw.Transport(), b.raw.Transport(); ta != tb {
		return ta == underlay.QUIC
	}
	if gap := a.admitted - b.admitted; gap > simultaneous || gap < -simultaneous {
		return gap > 0
	}
	return bytes.Compare(a.adm.Session[:], b.adm.Session[:]) < 0
}

// best returns the connection to use for a peer, or nil.
func (m *Mesh) best(id identity.ID) *conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[id]; p != nil {
		return p.best
	}
	return nil
}

// add puts an admitted connection on the table and starts it. It is the only way
// there. A connection of another run of a connected peer waits until it is clear
// that the earlier run is gone. On an error the connection has been closed.
func (m *Mesh) add(c *conn) error {
	if err := m.replaceRuns(c); err != nil {
		c.close(err)
		return err
	}
	m.log.Debug("peer connected", "peer", c.adm.Peer.Short(), "addr", c.raw.Remote().String(), "transport", c.raw.Transport().String())
	c.beat.arm(c)
	if c.dialled {
		m.wg.Go(func() { c.beat.open(c) })
	}
	return nil
}

// enterLocked puts a connection on the table; there is none of another run.
func (m *Mesh) enterLocked(c *conn) {
	p := m.peers[c.adm.Peer]
	if p == nil {
		p = &peer{id: c.adm.Peer, since: c.since, best: c}
		m.peers[p.id] = p
		m.emitLocked(PeerUp, p.id)
	}
	p.conns = append(p.conns, c)
	m.rankLocked(p)
	m.wg.Go(func() {
		c.serve()
		m.remove(c)
	})
}

// rankLocked chooses a peer's best connection, and has the others closed after a
// time in which long-lived streams can move.
func (m *Mesh) rankLocked(p *peer) {
	before := p.best
	p.best = p.conns[0]
	for _, c := range p.conns[1:] {
		if better(c, p.best) {
			p.best = c
		}
	}
	if p.best != before {
		m.emitLocked(PathChanged, p.id)
	}
	m.emitLocked(PathsChanged, p.id)
	for _, c := range p.conns {
		if c != p.best && c.spare == nil {
			c.spare = time.AfterFunc(m.timing.Grace, func() { m.retire(c) })
		}
	}
	over, at := dial.QUIC, netip.AddrPort{}
	if p.best.raw.Transport() == underlay.TCP {
		over = dial.TCP
	}
	if remote := p.best.raw.Remote(); p.best.dialled || over == dial.QUIC {
		at = remote
	}
	if !m.reachable(at) {
		at = netip.AddrPort{}
	}
	now := m.now()
	m.sched.Connected(now, p.id, over, at)
	if p.best.doubted {
		m.sched.Doubt(now, p.id, true)
	}
	m.wakeDials()
}

// retire closes a connection unless it is the best again.
func (m *Mesh) retire(c *conn) {
	m.mu.Lock()
	c.spare = nil
	p := m.peers[c.adm.Peer]
	best := p != nil && p.best == c
	m.mu.Unlock()
	if !best {
		c.close(errReplaced)
	}
}

// remove takes an ended connection off the table.
func (m *Mesh) remove(c *conn) {
	if c.reason == errDead {
		m.stats.lost.Add(1)
	}
	clone := c.reason != errClone && c.raw.CloseReason() == link.ReasonClone
	m.log.Debug("connection ended", "peer", c.adm.Peer.Short(), "addr", c.raw.Remote().String(), "err", c.reason, "clone", clone)
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.spare != nil {
		c.spare.Stop()
	}
	m.takeOffLocked(c)
	if clone {
		m.turnedAwayLocked(c.raw)
		m.sched.Refused(m.now(), c.adm.Peer)
		m.wakeDials()
	}
}

// takeOffLocked takes a connection off the table if it is there.
func (m *Mesh) takeOffLocked(c *conn) {
	p := m.peers[c.adm.Peer]
	if p == nil {
		return
	}
	i := slices.Index(p.conns, c)
	if i < 0 {
		return
	}
	p.conns = slices.Delete(p.conns, i, i+1)
	if len(p.conns) > 0 {
		m.rankLocked(p)
		return
	}
	delete(m.peers, p.id)
	m.emitLocked(PeerDown, p.id)
	m.sched.Disconnected(m.now(), p.id)
	m.wakeDials()
}

// Disconnect closes all connections to a peer. It is dialled again unless
// Config.Allow refuses it or it is forgotten.
func (m *Mesh) Disconnect(peer identity.ID) {
	m.mu.Lock()
	var conns []*conn
	if p := m.peers[peer]; p != nil {
		conns = slices.Clone(p.conns)
	}
	m.mu.Unlock()
	for _, c := range conns {
		c.close(fmt.Errorf("disconnect %s: %w", peer.Short(), errForgotten))
	}
}

// allowed asks Config.Allow.
func (m *Mesh) allowed(peer identity.ID) bool {
	return m.cfg.Allow == nil || m.cfg.Allow(peer)
}

// knows reports whether a peer is no stranger: it has a record, or was here.
func (m *Mesh) knows(peer identity.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sched.Knows(peer)
}
