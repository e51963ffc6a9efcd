package mesh

import (
	"bytes"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kairos-io/kairos/overlay/admission"
	"github.com/kairos-io/kairos/overlay/identity"
)

// peerState is a connected peer: it has at least one connection.
type peerState struct {
	id    identity.ID
	since time.Time
	conns []*conn
	best  *conn
}

func (p *peerState) info(now time.Duration) PeerInfo {
	c := p.best
	return PeerInfo{
		ID: p.id, Transport: c.transport, Remote: c.remote.String(), Endpoint: c.remote,
		RTT: time.Duration(c.rtt.Load()), Since: p.since, Heard: now - time.Duration(c.heard.Load()),
	}
}

type counters struct {
	dials, dialsFailed, streamsRefused, lost atomic.Uint64
}

// Stats counts since the start of the mesh.
type Stats struct {
	Admission      admission.Stats
	Dials          uint64 // connections tried
	DialsFailed    uint64 // of these, not admitted
	StreamsRefused uint64 // unknown protocol, or too many at once
	Lost           uint64 // connections closed because the peer fell silent
	Members        int    // peers known, connected or not
	Peers          int    // peers connected
	KernelDrops    uint64 // packets that did not fit into the buffers of the UDP sockets
	QUICDrops      uint64 // packets that QUIC had no time to read from them
	Unsegmented    int    // UDP sockets that send packets one by one: socket.Stats
}

// Stats returns the counters.
func (m *Mesh) Stats() Stats {
	s := Stats{
		Admission:      m.gate.Stats(),
		Dials:          m.stats.dials.Load(),
		DialsFailed:    m.stats.dialsFailed.Load(),
		StreamsRefused: m.stats.streamsRefused.Load(),
		Lost:           m.stats.lost.Load(),
	}
	m.under.socketStats(&s)
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Members, s.Peers = len(m.targets), len(m.peers)
	return s
}

// better reports whether a is to be kept rather than b. Both ends of the two
// connections come to the same answer.
func better(a, b *conn) bool {
	if a.transport != b.transport {
		return a.transport == quicName
	}
	if gap := a.admitted - b.admitted; gap > settle || gap < -settle {
		return gap > 0
	}
	return bytes.Compare(a.adm.Session[:], b.adm.Session[:]) < 0
}

// best returns the connection to use for a peer, or nil.
func (m *Mesh) best(peer identity.ID) *conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[peer]; p != nil {
		return p.best
	}
	return nil
}

// add puts an admitted connection on the table and starts it. It is the only
// way there.
func (m *Mesh) add(c *conn) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		c.close(errShutdown)
		return ErrClosed
	}
	p := m.peers[c.peer()]
	var earlier, spare []*conn
	if p != nil {
		earlier = m.dropEarlierLocked(p, c)
		if len(p.conns) == 0 {
			p = nil
		}
	}
	if p == nil {
		p = &peerState{id: c.peer(), since: c.since, conns: []*conn{c}, best: c}
		m.peers[p.id] = p
		m.emitLocked(PeerUp, p.id)
	} else {
		spare = m.rankLocked(p, c)
	}
	m.rememberLocked(c)
	m.wg.Go(func() {
		c.serve()
		m.remove(c)
	})
	m.mu.Unlock()

	m.log.Debug("peer connected", "peer", c.peer().Short(), "addr", c.remote.String(), "transport", c.transport)
	for _, old := range earlier {
		old.close(errEarlierRun)
	}
	for _, s := range spare {
		m.retire(s)
	}
	c.beat.arm(c)
	if c.dialled {
		m.wg.Go(func() { c.beat.open(c) })
	}
	return nil
}

// dropEarlierLocked takes the connections of another run than c's off the
// table; the caller closes them after unlocking.
func (m *Mesh) dropEarlierLocked(p *peerState, c *conn) []*conn {
	var earlier []*conn
	p.conns = slices.DeleteFunc(p.conns, func(o *conn) bool {
		if o.adm.Run == c.adm.Run {
			return false
		}
		earlier = append(earlier, o)
		return true
	})
	if len(p.conns) == 0 {
		delete(m.peers, p.id)
		m.emitLocked(PeerDown, p.id)
	}
	return earlier
}

// rankLocked adds c to a peer's connections and returns those to retire.
func (m *Mesh) rankLocked(p *peerState, c *conn) (spare []*conn) {
	p.conns = append(p.conns, c)
	if better(c, p.best) {
		p.best = c
		m.emitLocked(PathChanged, p.id)
	}
	for _, o := range p.conns {
		if o != p.best {
			spare = append(spare, o)
		}
	}
	return spare
}

// retire closes a connection after the grace period, unless it is the best again.
func (m *Mesh) retire(c *conn) {
	timer := time.AfterFunc(m.timing.Grace, func() {
		if m.best(c.peer()) != c {
			c.close(errReplaced)
		}
	})
	m.wg.Go(func() {
		<-c.done
		timer.Stop()
	})
}

// remove takes an ended connection off the table.
func (m *Mesh) remove(c *conn) {
	if c.reason == errDead {
		m.stats.lost.Add(1)
	}
	m.log.Debug("connection ended", "peer", c.peer().Short(), "addr", c.remote.String(), "err", c.reason)
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[c.peer()]
	if p == nil {
		return
	}
	i := slices.Index(p.conns, c)
	if i < 0 {
		return
	}
	p.conns = slices.Delete(p.conns, i, i+1)
	if len(p.conns) == 0 {
		delete(m.peers, p.id)
		m.emitLocked(PeerDown, p.id)
		if t := m.targets[p.id]; t != nil {
			t.lost(m.now())
		}
		return
	}
	if p.best != c {
		return
	}
	p.best = p.conns[0]
	for _, o := range p.conns[1:] {
		if better(o, p.best) {
			p.best = o
		}
	}
	m.emitLocked(PathChanged, p.id)
	if t := m.targets[p.id]; t != nil {
		t.nudge() // what is left is the worse path: look for a better one again
	}
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
