package mesh

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/discovery"
	"github.com/kairos-io/kairos/overlay/identity"
)

// Bounds of what is remembered and tried.
const (
	maxTargets     = 4096 // members known at once
	maxRumours     = 64   // of these, only heard of on the local network, where anybody may say anything
	rumourPatience = time.Minute
	rumourPause    = 2 * time.Second // between dials that repeated announcements cause
	maxAddrs       = 8               // addresses tried in one dial
	maxHeard       = 4               // of these, only heard of on the local network
	staticPatience = 30 * time.Second
	selfPatience   = 10 * time.Minute
)

// target is a member to stay connected to, with every address known for it.
// Its fields are guarded by Mesh.mu.
type target struct {
	id     identity.ID
	hosts  []discovery.Peer // configured
	heard  []netip.AddrPort // on the local network
	record []netip.AddrPort // from its own record
	last   netip.AddrPort   // of the last connection
	away   time.Duration    // mesh time since which it is not connected
	tried  time.Duration    // mesh time of the last dial
	rumour bool             // nobody who is admitted vouched for it so far
	wake   chan struct{}    // something about it changed
	gone   chan struct{}    // closed by Forget
}

func (t *target) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// lost notes that the last connection ended.
func (t *target) lost(now time.Duration) {
	t.away = now
	t.nudge()
}

// Learn tells where a member says that it is: its record's underlay
// addresses. What cannot be dialled is passed over. The mesh connects to every
// member that it learned of, until Forget.
func (m *Mesh) Learn(id identity.ID, underlay []netip.AddrPort) {
	m.update(id, func(t *target) bool {
		changed := !slices.Equal(t.record, underlay)
		t.record = slices.Clone(underlay)
		return changed
	})
}

// found tells where a member was heard on the local network. Whoever is there
// may make it up, so that few are believed at once, and not for long.
func (m *Mesh) found(id identity.ID, addrs []netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.targets[id]
	if t == nil {
		if m.rumoursLocked() >= maxRumours {
			return
		}
		if t = m.targetLocked(id); t == nil {
			return
		}
		t.rumour, t.tried = true, -rumourPause
	}
	news := !slices.Equal(t.heard, addrs)
	t.heard = addrs
	if news || m.now()-t.tried > rumourPause {
		t.nudge()
	}
}

func (m *Mesh) rumoursLocked() (n int) {
	for _, t := range m.targets {
		if t.rumour {
			n++
		}
	}
	return n
}

// Forget stops dialling a member that left or expired. A connection that is
// there stays.
func (m *Mesh) Forget(id identity.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.targets[id]; t != nil && m.peers[id] == nil {
		delete(m.targets, id)
		close(t.gone)
	}
}

func (m *Mesh) update(id identity.ID, change func(*target) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.targetLocked(id)
	if t == nil {
		return
	}
	t.rumour = false
	if change(t) {
		t.nudge()
	}
}

// targetLocked returns the target of a member, making and starting it.
func (m *Mesh) targetLocked(id identity.ID) *target {
	if t := m.targets[id]; t != nil {
		return t
	}
	if m.closed || id == m.self || id.IsZero() || len(m.targets) >= maxTargets {
		return nil
	}
	t := &target{id: id, away: m.now(), wake: make(chan struct{}, 1), gone: make(chan struct{})}
	m.targets[id] = t
	m.wg.Go(func() { m.runTarget(t) })
	return t
}

// rememberLocked keeps the address of a new connection for later.
func (m *Mesh) rememberLocked(c *conn) {
	if t := m.targetLocked(c.peer()); t != nil {
		t.last, t.rumour = c.remote, false
		t.nudge() // there may be something better to do now than to wait for it
	}
}

// addrs returns what to dial now: what worked last, what is near, the rest.
func (m *Mesh) addrs(ctx context.Context, t *target) []netip.AddrPort {
	m.mu.Lock()
	hosts := slices.Clone(t.hosts)
	all := slices.Concat([]netip.AddrPort{t.last}, t.heard[:min(len(t.heard), maxHeard)], t.record)
	m.mu.Unlock()
	// Nobody else may send this node to services of its own machine.
	all = slices.DeleteFunc(all, func(a netip.AddrPort) bool {
		return a.Addr().Unmap().IsLoopback() && !m.cfg.Loopback
	})
	for _, h := range hosts {
		found, err := h.Resolve(ctx, m.resolver())
		if err != nil {
			m.log.Debug("cannot resolve peer", "addr", h.String(), "err", err)
		}
		all = append(all, found...)
	}
	all = m.dialable(all)
	return all[:min(len(all), maxAddrs)]
}

// runTarget keeps one member connected.
func (m *Mesh) runTarget(t *target) {
	defer m.forgetOnExit(t)
	deferred := m.self.Compare(t.id) < 0 // the lower ID does not wait
	upgrade := m.timing.Upgrade
	for {
		switch c := m.best(t.id); {
		case c != nil && (c.transport == quicName || m.under.quic == nil):
			deferred, upgrade = m.self.Compare(t.id) < 0, m.timing.Upgrade
			if !m.wait(t, 0) {
				return
			}
		case c != nil:
			// Only the time passing or a change of the network makes UDP get through.
			if !m.wait(t, upgrade) {
				return
			}
			if m.best(t.id) == c {
				m.tryUpgrade(t)
				upgrade = min(2*upgrade, maxUpgrade)
			}
		case !deferred:
			deferred = true
			if !m.wait(t, m.timing.Deference) {
				return
			}
		default:
			if !m.wait(t, m.tryTarget(t)) || m.unconfirmed(t) {
				return
			}
		}
	}
}

// unconfirmed reports whether a rumour has had its time.
func (m *Mesh) unconfirmed(t *target) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !t.rumour || m.now()-t.away < rumourPatience {
		return false
	}
	delete(m.targets, t.id)
	return true
}

func (m *Mesh) forgetOnExit(t *target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.targets[t.id] == t {
		delete(m.targets, t.id)
	}
}

// tryTarget dials a member once and returns how long to wait after that; 0
// means until something changes.
func (m *Mesh) tryTarget(t *target) time.Duration {
	m.mu.Lock()
	t.tried = m.now()
	away := t.tried - t.away
	m.mu.Unlock()
	if m.allowed(t.id) {
		addrs := m.addrs(m.ctx, t)
		if len(addrs) == 0 {
			return m.idle(t)
		}
		if err := m.race(m.ctx, t.id, addrs, []string{quicName, tcpName}); err == nil {
			return 0
		}
	}
	return discovery.Backoff(away, rand.Float64())
}

// idle is how long to wait when there is nothing to dial: names may resolve later.
func (m *Mesh) idle(t *target) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(t.hosts) > 0 {
		return staticPatience
	}
	return 0
}

// tryUpgrade dials a peer that is connected over TCP by QUIC.
func (m *Mesh) tryUpgrade(t *target) {
	if addrs := m.addrs(m.ctx, t); len(addrs) > 0 {
		// Failing is the expected case here; the next try follows.
		if err := m.race(m.ctx, t.id, addrs, []string{quicName}); err != nil {
			m.log.Debug("still no QUIC to peer", "peer", t.id.Short(), "err", err)
		}
	}
}

// wait returns true after d (0: never), or when the target or the network
// changed; false when the target is given up.
func (m *Mesh) wait(t *target, d time.Duration) bool {
	var after <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		after = timer.C
	}
	select {
	case <-after:
	case <-t.wake:
	case <-m.kick.wait():
	case <-t.gone:
		return false
	case <-m.ctx.Done():
		return false
	}
	return m.ctx.Err() == nil
}

// runStatic looks for whoever lives at a configured address. Once it is known
// it is a target like any other; the address is asked again only when that
// member stays away, because somebody else may have moved in.
func (m *Mesh) runStatic(p discovery.Peer) {
	if !p.ID.IsZero() {
		m.adopt(p.ID, p)
		return
	}
	var resident identity.ID
	away := m.now()
	for m.ctx.Err() == nil {
		if !resident.IsZero() && m.Connected(resident) {
			away = m.now()
			m.sleep(staticPatience)
			continue
		}
		id, wait := m.tryStatic(p, m.now()-away)
		if !id.IsZero() {
			resident = id
			m.adopt(id, p)
		}
		m.sleep(wait)
	}
}

// adopt adds a configured address to a member.
func (m *Mesh) adopt(id identity.ID, p discovery.Peer) {
	m.update(id, func(t *target) bool {
		if slices.Contains(t.hosts, p) {
			return false
		}
		t.hosts = append(t.hosts, p)
		return true
	})
}

// sleep waits for d or until the network changes.
func (m *Mesh) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-m.kick.wait():
	case <-m.ctx.Done():
	}
}
