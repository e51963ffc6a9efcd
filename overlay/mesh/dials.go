package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/admission"
	"github.com/kairos-io/kairos/overlay/dial"
	"github.com/kairos-io/kairos/overlay/discovery"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/underlay"
)

// errNotAllowed says that Config.Allow refuses a peer.
var errNotAllowed = errors.New("peer is not allowed here")

// lookUpTimeout bounds the look-up of a configured name.
const lookUpTimeout = 5 * time.Second

// schedule tells the scheduler something.
func (m *Mesh) schedule(tell func(now time.Duration)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	tell(m.now())
	m.wakeDials()
}

// wakeDials has the scheduler asked what to do.
func (m *Mesh) wakeDials() {
	select {
	case m.look <- struct{}{}:
	default:
	}
}

// runDials does what the scheduler says.
func (m *Mesh) runDials() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-m.look:
		case <-m.ctx.Done():
			return
		}
		timer.Reset(m.nextDials())
	}
}

// nextDials takes the scheduler's next steps and returns how long to wait.
func (m *Mesh) nextDials() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	steps, again := m.sched.Next(now)
	for _, d := range steps.Start {
		ctx, cancel := context.WithCancel(m.ctx)
		m.dials[d.Number] = cancel
		m.wg.Go(func() { m.makeDial(ctx, d) })
	}
	for _, number := range steps.Stop {
		if cancel := m.dials[number]; cancel != nil {
			cancel()
		}
	}
	for _, name := range steps.Resolve {
		m.wg.Go(func() { m.lookUp(name) })
	}
	return again - now
}

// makeDial makes one dial and reports it.
func (m *Mesh) makeDial(ctx context.Context, d dial.Dial) {
	m.stats.dials.Add(1)
	peer, err := m.connect(ctx, d)
	r := dial.Result{Number: d.Number, Peer: peer, Outcome: outcomeOf(err)}
	if err != nil {
		m.stats.dialsFailed.Add(1)
		r.Why = err.Error()
		m.log.Debug("dial failed", "addr", d.Addr.String(), "transport", d.Transport.String(), "err", err)
		if d.Host != "" && (errors.Is(err, admission.ErrRefused) || errors.Is(err, admission.ErrProof)) {
			m.log.Warn("peer has another network token", "addr", d.Host, "err", err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dials[d.Number]()
	delete(m.dials, d.Number)
	m.sched.Done(m.now(), r)
	m.wakeDials()
}

func outcomeOf(err error) dial.Outcome {
	switch {
	case err == nil:
		return dial.OK
	case errors.Is(err, admission.ErrSelf):
		return dial.Self
	case errors.Is(err, errNotAllowed):
		return dial.NotAllowed
	case errors.Is(err, errClone):
		return dial.Clone
	}
	return dial.Failed
}

// connect dials, admits and puts the connection on the table. It returns who is
// there. A dial that is given up has come in second.
func (m *Mesh) connect(ctx context.Context, d dial.Dial) (identity.ID, error) {
	if !d.Want.IsZero() && !m.allowed(d.Want) {
		return identity.ID{}, errNotAllowed
	}
	over := underlay.QUIC
	if d.Transport == dial.TCP {
		over = underlay.TCP
	}
	handshake, cancel := context.WithTimeout(ctx, d.Timeout)
	raw, err := m.under.Dial(handshake, over, d.Addr, d.Want)
	cancel()
	if err != nil {
		return identity.ID{}, fmt.Errorf("dial: %w", err)
	}
	got := raw.Peer()
	if err, known := m.wanted(d, got); err != nil || known {
		// The other end knows this one: what is broken off here is not held against it.
		_ = raw.Close(link.ReasonReplaced)
		return got, err
	}
	adm, err := m.gate.Admit(ctx, raw, admission.Dialled)
	switch {
	case err != nil && raw.CloseReason() == link.ReasonClone: // faster than the answer before it
		m.mu.Lock()
		m.turnedAwayLocked(raw)
		m.mu.Unlock()
		return identity.ID{}, errClone
	case err != nil:
		return identity.ID{}, err
	}
	return got, m.add(m.newConn(raw, adm, true))
}

// wanted decides whether to go on with the peer that answered: an error, or that it
// is known well enough.
func (m *Mesh) wanted(d dial.Dial, got identity.ID) (err error, known bool) {
	switch {
	case got == m.self:
		return admission.ErrSelf, false
	case !m.allowed(got):
		return errNotAllowed, false
	}
	return nil, d.Want.IsZero() && m.Connected(got)
}

// configureHosts tells the scheduler of the configured peers.
func (m *Mesh) configureHosts() {
	m.schedule(func(now time.Duration) {
		for _, name := range slices.Sorted(maps.Keys(m.hosts)) {
			p := m.hosts[name]
			h := dial.Host{Name: name, ID: p.ID}
			if addr, err := netip.ParseAddr(p.Host); err == nil {
				if h.Addrs = m.usable([]netip.AddrPort{netip.AddrPortFrom(addr, p.Port)}); len(h.Addrs) == 0 {
					m.log.Warn("peer cannot be dialled", "addr", name)
					continue
				}
			}
			m.sched.Configure(now, h)
		}
	})
}

// lookUp resolves the name of a configured peer.
func (m *Mesh) lookUp(name string) {
	ctx, cancel := context.WithTimeout(m.ctx, lookUpTimeout)
	defer cancel()
	addrs, err := m.hosts[name].Resolve(ctx, resolver)
	if err != nil {
		m.log.Debug("cannot resolve peer", "addr", name, "err", err)
	}
	addrs = m.usable(addrs)
	m.schedule(func(now time.Duration) { m.sched.Resolved(now, name, addrs) })
}

// resolver looks up the names of configured peers.
var resolver discovery.Resolver = net.DefaultResolver

// Missing lists up to limit members and configured peers that are not connected, and
// what was tried.
func (m *Mesh) Missing(limit int) []dial.Missing {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sched.Missing(m.now(), limit)
}

// accept admits what comes in.
func (m *Mesh) accept() {
	for {
		raw, err := m.under.Accept(m.ctx)
		if err != nil {
			if m.ctx.Err() == nil {
				m.log.Error("cannot accept connections any more", "err", err)
			}
			return
		}
		m.wg.Go(func() { m.admitAccepted(raw) })
	}
}

func (m *Mesh) admitAccepted(raw *underlay.Conn) {
	if !m.acceptable(raw.Remote().Addr()) || !m.allowed(raw.Peer()) {
		_ = raw.Close(link.ReasonNone) // nobody is told why
		return
	}
	adm, err := m.gate.Admit(m.ctx, raw, admission.Accepted)
	if err == nil {
		err = m.add(m.newConn(raw, adm, false))
	}
	if err != nil {
		m.log.Debug("connection refused", "addr", raw.Remote().String(), "err", err)
	}
}

// callable decides whether a connection may start its handshake.
func (m *Mesh) callable(remote, local netip.AddrPort) bool {
	return m.acceptable(remote.Addr()) && (local.Addr().IsUnspecified() || m.acceptable(local.Addr())) && m.gate.Allow(remote.Addr())
}
