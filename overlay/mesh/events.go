package mesh

import (
	"sync"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
)

// The words for peers are shared with gossip.
type (
	// Event is one change of the mesh.
	Event = link.Event
	// EventKind says what happened.
	EventKind = link.EventKind
)

// The kinds of events. For one peer they come in this order:
//
//	PeerUp -> PathChanged* -> PeerDown -> PeerUp ...
//
// A peer that restarted is reported down and up again.
const (
	PeerUp          = link.PeerUp          // the first connection of a peer was admitted
	PeerDown        = link.PeerDown        // its last connection ended
	PathChanged     = link.PathChanged     // another connection is the best now: move long-lived streams
	PathsChanged    = link.PathsChanged    // Mesh.Sources of the peer changed
	UnderlayChanged = link.UnderlayChanged // this node's own addresses changed; Peer is zero
	CloneSeen       = link.CloneSeen       // two machines have the peer's key, or this node's: Mesh.Clones
)

// subscription queues events for one reader without a bound, so that a slow
// reader never holds up the mesh nor misses a peer. It is small: a reader
// that stopped should unsubscribe.
type subscription struct {
	out  chan Event
	quit chan struct{}
	once sync.Once

	mu    sync.Mutex
	queue []Event
	wake  chan struct{}
}

// Events subscribes to changes. The peers that are connected already come
// first, as PeerUp. The channel is closed by cancel and when the mesh closes.
func (m *Mesh) Events() (events <-chan Event, cancel func()) {
	s := &subscription{out: make(chan Event), quit: make(chan struct{}), wake: make(chan struct{}, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		close(s.out)
		return s.out, func() {}
	}
	for id := range m.peers {
		s.push(Event{Kind: PeerUp, Peer: id})
	}
	m.subs[s] = struct{}{}
	m.wg.Go(s.pump)
	return s.out, func() {
		m.mu.Lock()
		delete(m.subs, s)
		m.mu.Unlock()
		s.close()
	}
}

// emitLocked tells every subscriber; m.mu is held, which orders the events.
func (m *Mesh) emitLocked(kind EventKind, peer identity.ID) {
	for s := range m.subs {
		s.push(Event{Kind: kind, Peer: peer})
	}
}

func (s *subscription) push(e Event) {
	s.mu.Lock()
	s.queue = append(s.queue, e)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscription) close() { s.once.Do(func() { close(s.quit) }) }

func (s *subscription) pump() {
	defer close(s.out)
	for {
		select {
		case <-s.wake:
		case <-s.quit:
			return
		}
		s.mu.Lock()
		batch := s.queue
		s.queue = nil
		s.mu.Unlock()
		for _, e := range batch {
			select {
			case s.out <- e:
			case <-s.quit:
				return
			}
		}
	}
}
