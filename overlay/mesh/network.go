package mesh

import (
	"net/netip"
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/dial"
	"github.com/kairos-io/kairos/overlay/discovery"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/token"
)

// maxAnnounced bounds how many addresses a node announces.
const maxAnnounced = 16

// acceptable reports whether an address may be underlay. The overlay's own
// ranges may not: a tunnel inside itself carries nothing.
func (m *Mesh) acceptable(addr netip.Addr) bool {
	addr = addr.Unmap()
	if !addr.IsValid() || addr.Zone() != "" {
		return false
	}
	for _, p := range m.cfg.Exclude {
		if p.Contains(addr) {
			return false
		}
	}
	return true
}

// usable keeps the addresses that may be dialled when a person names them.
func (m *Mesh) usable(addrs []netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range addrs {
		ip := a.Addr().Unmap()
		if a.Port() == 0 || !m.acceptable(ip) || ip.IsUnspecified() || ip.IsMulticast() {
			continue
		}
		if a = netip.AddrPortFrom(ip, a.Port()); !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// dialable keeps the addresses that may be dialled when somebody else names them:
// nobody else may send this node to services of its own machine.
func (m *Mesh) dialable(addrs []netip.AddrPort) []netip.AddrPort {
	return slices.DeleteFunc(m.usable(addrs), func(a netip.AddrPort) bool { return !m.reachable(a) })
}

// reachable reports whether an address is another machine's, or loopback is meant.
func (m *Mesh) reachable(a netip.AddrPort) bool {
	return a.IsValid() && (m.cfg.Loopback || !a.Addr().IsLoopback())
}

// Underlay returns the addresses, each for QUIC and TCP, at which other machines may
// reach this node, as its record announces them: the most useful first.
func (m *Mesh) Underlay() []netip.AddrPort {
	var out []netip.AddrPort
	add := func(a netip.AddrPort) {
		if m.announceable(a.Addr()) && !slices.Contains(out, a) && len(out) < maxAnnounced {
			out = append(out, a)
		}
	}
	local := m.localAddrs()
	for _, b := range m.under.Bound() {
		if !b.Addr().IsUnspecified() {
			add(b)
			continue
		}
		for _, ip := range local {
			if ip.Is4() == b.Addr().Is4() {
				add(netip.AddrPortFrom(ip, b.Port()))
			}
		}
	}
	return out
}

func (m *Mesh) announceable(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return m.cfg.Loopback && m.acceptable(ip)
	}
	return ip.IsGlobalUnicast() && m.acceptable(ip)
}

// localAddrs are this machine's addresses, as far as they can be read.
func (m *Mesh) localAddrs() []netip.Addr {
	local, err := m.under.Addrs()
	if err != nil {
		m.log.Warn("cannot read this machine's addresses", "err", err)
	}
	return local
}

// watchNetwork has everything tried again when the network changed. Where only
// something else than the usable addresses changed, as it does with every container
// that starts, that happens now and then; what is connected is probed each time.
func (m *Mesh) watchNetwork() {
	before := m.Underlay()
	m.schedule(func(time.Duration) { m.sched.SetLocal(m.localAddrs()) })
	var minor time.Time // when a change without new addresses is acted on, or was
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-m.under.Changes():
		case <-timer.C:
		case <-m.ctx.Done():
			return
		}
		select {
		case m.changes <- struct{}{}:
		default:
		}
		after := m.Underlay()
		m.probeAll()
		changed := !slices.Equal(before, after)
		if wait := time.Until(minor); !changed && wait > 0 {
			timer.Reset(wait) // a change is put off, never forgotten
			continue
		}
		minor, before = time.Now().Add(m.timing.Calm), after
		timer.Stop()
		m.networkChanged(after, changed)
	}
}

func (m *Mesh) networkChanged(addrs []netip.AddrPort, changed bool) {
	m.log.Info("this machine's network changed", "addr", addrs)
	local := m.localAddrs()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sched.NetworkChanged(m.now(), local)
	if changed {
		m.emitLocked(UnderlayChanged, identity.ID{})
	}
	m.wakeDials()
}

// probeAll asks all peers for an answer; those that give none are dialled.
func (m *Mesh) probeAll() {
	m.mu.Lock()
	var conns []*conn
	for _, p := range m.peers {
		conns = append(conns, p.conns...)
	}
	m.mu.Unlock()
	for _, c := range conns {
		m.wg.Go(func() { m.probe(c) })
	}
}

// probe pings a peer, and doubts the connection if there is no answer soon.
func (m *Mesh) probe(c *conn) {
	timer := time.NewTimer(min(max(m.timing.Probe, 3*time.Duration(c.rtt.Load())), m.timing.Dead))
	defer timer.Stop()
	number := c.beat.ping(c)
	select {
	case <-timer.C:
	case <-c.done:
		return
	case <-m.ctx.Done():
		return
	}
	if !c.beat.answered(number) {
		m.setDoubt(c, true)
	}
}

// trust notes that a connection answers.
func (m *Mesh) trust(c *conn) {
	m.mu.Lock()
	doubted := c.doubted
	m.mu.Unlock()
	if doubted {
		m.setDoubt(c, false)
	}
}

func (m *Mesh) setDoubt(c *conn, doubted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[c.adm.Peer]
	if p == nil || !slices.Contains(p.conns, c) || c.doubted == doubted {
		return
	}
	c.doubted = doubted
	m.rankLocked(p)
}

// found tells the scheduler where a member was heard on the local network. Whoever is
// there may make it up.
func (m *Mesh) found(id identity.ID, addrs []netip.AddrPort) {
	if len(addrs) == 0 {
		return
	}
	source := addrs[0].Addr()
	if addrs = m.dialable(addrs); len(addrs) == 0 {
		return
	}
	// The first is where the announcement came from.
	rumour := dial.Rumour{Member: id, Addrs: addrs, Source: source}
	m.schedule(func(now time.Duration) { m.sched.Hear(now, rumour) })
}

// startMDNS announces this node on the local network and listens for others.
func (m *Mesh) startMDNS(keys token.Keys) {
	mdns := &discovery.MDNS{
		Self:    m.self,
		Addrs:   m.Underlay,
		Usable:  m.acceptable,
		Found:   m.found,
		Changes: m.changes,
		Log:     m.log,
	}
	for _, d := range keys.Doors {
		mdns.Keys = append(mdns.Keys, d.Find.MDNS)
	}
	m.wg.Go(func() { mdns.Run(m.ctx) })
}
