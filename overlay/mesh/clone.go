package mesh

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/underlay"
)

// Two machines with one key: somebody copied a disk. Both are admitted, since both
// hold the key and the token, and each run of a process has a name of its own:
//
//	a connection of another run comes -> the connections there are pinged
//	     no answer, or they break     -> the peer restarted: they are replaced
//	     an answer                    -> two machines: the one that is here stays, the
//	                                     other is turned away, and both are told
//
// Whoever is turned away leaves the peer alone for a growing time.
const (
	maxCalls    = 4  // connections of other runs of one peer that wait at once
	maxClones   = 32 // remembered
	cloneMemory = 5 * time.Minute
)

// Clone is a machine that has the same key as another one. There are two of them, and
// nobody knows which one is the copy.
type Clone struct {
	ID     identity.ID
	First  netip.AddrPort // of the one that was there; the zero address if not known
	Second netip.AddrPort // of the one that was turned away
	Self   bool           // the key is this node's own
	Heard  time.Duration  // since it was noticed last

	at time.Duration // mesh time of that
}

// Clones lists the machines that were found to share a key with another lately.
func (m *Mesh) Clones() []Clone {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Clone
	now := m.now()
	for _, c := range m.clones {
		if c.Heard = now - c.at; c.Heard < cloneMemory {
			out = append(out, c)
		}
	}
	return out
}

// noteCloneLocked remembers a clone, the latest last.
func (m *Mesh) noteCloneLocked(c Clone) {
	c.at = m.now()
	known := slices.IndexFunc(m.clones, func(o Clone) bool { return o.ID == c.ID })
	if known >= 0 {
		old := m.clones[known]
		if !c.First.IsValid() {
			c.First = old.First
		}
		m.clones = slices.Delete(m.clones, known, known+1)
		if c.at-old.at < cloneMemory {
			m.clones = append(m.clones, c)
			return
		}
	}
	if len(m.clones) == maxClones {
		m.clones = slices.Delete(m.clones, 0, 1)
	}
	m.clones = append(m.clones, c)
	m.log.Warn("two machines have one identity key", "peer", c.ID.Short(), "first", c.First.String(), "second", c.Second.String())
	m.emitLocked(CloneSeen, c.ID)
}

// toldOfClone takes a peer's word that another machine has this node's key.
func (m *Mesh) toldOfClone(c *conn, at netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.noteCloneLocked(Clone{ID: m.self, First: c.raw.Local(), Second: at, Self: true})
}

// turnedAwayLocked notes that a peer closed a connection because another machine with
// this node's key is connected to it.
func (m *Mesh) turnedAwayLocked(raw *underlay.Conn) {
	m.noteCloneLocked(Clone{ID: m.self, Second: raw.Local(), Self: true})
}

// replaceRuns makes sure that there is no connection of another run than c's, and
// puts c on the table: errClone if the other run lives, ErrClosed.
func (m *Mesh) replaceRuns(c *conn) error {
	for {
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return errShutdown
		}
		p := m.peers[c.adm.Peer]
		rivals := p.otherRuns(c)
		if len(rivals) == 0 {
			m.enterLocked(c)
			m.mu.Unlock()
			return nil
		}
		if p.calls >= maxCalls {
			m.mu.Unlock()
			return errClone
		}
		p.calls++
		m.mu.Unlock()

		alive := m.challenge(rivals)

		m.mu.Lock()
		p.calls--
		if alive != nil {
			m.noteCloneLocked(Clone{ID: p.id, First: alive.raw.Remote(), Second: c.raw.Remote()})
			m.mu.Unlock()
			alive.beat.tellClone(alive, c.raw.Remote())
			return errClone
		}
		for _, o := range rivals {
			m.takeOffLocked(o)
		}
		m.mu.Unlock()
		for _, o := range rivals {
			o.close(errEarlierRun)
		}
	}
}

// otherRuns are the connections of another run than c's; p may be nil.
func (p *peer) otherRuns(c *conn) (out []*conn) {
	if p == nil {
		return nil
	}
	for _, o := range p.conns {
		if o.adm.Run != c.adm.Run {
			out = append(out, o)
		}
	}
	return out
}

// challenge pings connections and returns the first that answers, or nil when all
// are silent or broken.
func (m *Mesh) challenge(conns []*conn) *conn {
	ctx, cancel := context.WithTimeout(m.ctx, m.timing.Challenge)
	defer cancel()
	for _, c := range conns {
		if c.answers(ctx) {
			return c
		}
	}
	return nil
}

// answers pings the peer and waits for its answer, the connection's end or ctx's.
func (c *conn) answers(ctx context.Context) bool {
	number := c.beat.ping(c)
	for {
		pong := c.beat.pong()
		if c.beat.answered(number) {
			return true
		}
		select {
		case <-pong:
		case <-c.done:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
