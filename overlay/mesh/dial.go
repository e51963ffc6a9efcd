package mesh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/kairos-io/kairos/overlay/admission"
	"github.com/kairos-io/kairos/overlay/discovery"
	"github.com/kairos-io/kairos/overlay/identity"

	"github.com/libp2p/go-libp2p/core/transport"
)

// Why a dial did not add a connection.
var (
	errAlready    = errors.New("is connected already")
	errWrongPeer  = errors.New("somebody else answers there")
	errNotAllowed = errors.New("peer is not allowed here")
	errNoAddress  = errors.New("no address to dial")
)

// alreadyError is errAlready with the ID that a dial to an unknown peer learned.
type alreadyError struct{ peer identity.ID }

func (e *alreadyError) Error() string { return e.peer.Short() + " " + errAlready.Error() }
func (e *alreadyError) Unwrap() error { return errAlready }

// attempt is one address over one transport.
type attempt struct {
	want  identity.ID // zero: whoever it is
	addr  netip.AddrPort
	via   string
	extra bool // a second connection to the peer is wanted
}

type outcome struct {
	c   *conn
	err error
}

// race dials all addresses over the transports at once, TCP with a delay, and
// puts the first that is admitted on the table. It returns when that is done
// or everything failed. Being connected already counts as done.
func (m *Mesh) race(ctx context.Context, want identity.ID, addrs []netip.AddrPort, via []string) error {
	_, err := m.raceFor(ctx, want, addrs, via)
	if errors.Is(err, errAlready) {
		return nil
	}
	return err
}

func (m *Mesh) raceFor(ctx context.Context, want identity.ID, addrs []netip.AddrPort, via []string) (identity.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, m.timing.Dial+m.timing.TCPDelay+m.timing.Admission)
	defer cancel()
	results, running := make(chan outcome), 0
	for _, name := range via {
		if m.under.transport(name) == nil {
			continue
		}
		for _, addr := range addrs {
			running++
			a := attempt{want: want, addr: addr, via: name, extra: len(via) == 1}
			m.wg.Go(func() { m.enter(ctx, a, results) })
		}
	}
	if running == 0 {
		return identity.ID{}, errNoAddress
	}
	var errs []error
	for ; running > 0; running-- {
		r := <-results
		if r.err == nil || errors.Is(r.err, errAlready) {
			cancel()
			m.wg.Go(func() { drain(results, running-1) })
			return m.won(r)
		}
		errs = append(errs, r.err)
	}
	return identity.ID{}, errors.Join(errs...)
}

// won puts the winner of a race on the table.
func (m *Mesh) won(r outcome) (identity.ID, error) {
	if r.err != nil {
		var already *alreadyError
		if errors.As(r.err, &already) {
			return already.peer, r.err
		}
		return identity.ID{}, r.err
	}
	return r.c.peer(), m.add(r.c)
}

// drain closes those that came in second.
func drain(results <-chan outcome, n int) {
	for range n {
		if r := <-results; r.c != nil {
			r.c.close(errReplaced)
		}
	}
}

// enter runs one attempt and reports it.
func (m *Mesh) enter(ctx context.Context, a attempt, results chan<- outcome) {
	if a.via == tcpName && m.under.quic != nil {
		timer := time.NewTimer(m.timing.TCPDelay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			results <- outcome{err: ctx.Err()}
			return
		}
	}
	m.stats.dials.Add(1)
	c, err := m.dial(ctx, a)
	if err != nil {
		m.stats.dialsFailed.Add(1)
		err = fmt.Errorf("dial %s (%s): %w", a.addr, a.via, err)
		m.log.Debug("dial failed", "addr", a.addr.String(), "transport", a.via, "err", err)
	}
	results <- outcome{c, err}
}

// dial opens and admits one connection.
func (m *Mesh) dial(ctx context.Context, a attempt) (*conn, error) {
	handshake, cancel := context.WithTimeout(ctx, m.timing.Dial)
	defer cancel()
	want := a.want
	if want.IsZero() && a.via == tcpName {
		// libp2p dials TCP only to somebody by name: ask for the name first.
		var err error
		if want, err = m.under.learn(handshake, a.addr); err != nil {
			return nil, err
		}
		if err := m.wanted(a, want); err != nil {
			return nil, err
		}
	}
	pid, err := peerID(want)
	if err != nil {
		return nil, err
	}
	at, err := multiaddr(a.addr, a.via)
	if err != nil {
		return nil, err
	}
	raw, err := m.under.transport(a.via).Dial(handshake, at, pid)
	if err != nil {
		return nil, err
	}
	return m.admitDialled(ctx, a, raw)
}

// wanted decides whether to go on with the peer that answered.
func (m *Mesh) wanted(a attempt, got identity.ID) error {
	switch {
	case got == m.self:
		return admission.ErrSelf
	case !a.want.IsZero() && got != a.want:
		return errWrongPeer
	case !m.allowed(got):
		return errNotAllowed
	case !a.extra && m.Connected(got):
		return &alreadyError{got}
	}
	return nil
}

func (m *Mesh) admitDialled(ctx context.Context, a attempt, raw transport.CapableConn) (*conn, error) {
	got, err := peerOf(raw)
	if err == nil {
		err = m.wanted(a, got)
	}
	if err != nil {
		_ = raw.CloseWithError(network.ConnNoError)
		return nil, err
	}
	adm, err := m.admit(ctx, raw, admission.Dialled)
	if err != nil {
		return nil, err
	}
	return m.newConn(raw, adm, true), nil
}

// tryStatic asks once who lives at a configured address and connects to it.
func (m *Mesh) tryStatic(p discovery.Peer, away time.Duration) (identity.ID, time.Duration) {
	addrs, err := p.Resolve(m.ctx, m.resolver())
	if err != nil {
		m.log.Debug("cannot resolve peer", "addr", p.String(), "err", err)
	}
	addrs = m.dialable(addrs)
	if len(addrs) == 0 {
		return identity.ID{}, discovery.Backoff(away, rand.Float64())
	}
	id, err := m.raceFor(m.ctx, identity.ID{}, addrs, []string{quicName, tcpName})
	switch {
	case errors.Is(err, admission.ErrSelf) && len(addrs) == 1:
		return identity.ID{}, selfPatience
	case !id.IsZero():
		return id, staticPatience
	case errors.Is(err, admission.ErrRefused) || errors.Is(err, admission.ErrProof):
		m.log.Warn("peer has another network token", "addr", p.String(), "err", err)
	}
	return identity.ID{}, discovery.Backoff(away, rand.Float64())
}

// acceptLoop admits what comes in on one listener.
func (m *Mesh) acceptLoop(l transport.Listener) {
	for {
		raw, err := l.Accept()
		if err != nil {
			if m.ctx.Err() == nil {
				m.log.Error("listener failed", "addr", l.Addr().String(), "err", err)
			}
			return
		}
		m.wg.Go(func() { m.admitAccepted(raw) })
	}
}

func (m *Mesh) admitAccepted(raw transport.CapableConn) {
	peer, err := peerOf(raw)
	if err == nil && (!m.acceptable(remoteOf(raw).Addr()) || !m.allowed(peer)) {
		_ = raw.CloseWithError(network.ConnNoError)
		return
	}
	adm, err := m.admit(m.ctx, raw, admission.Accepted)
	if err != nil {
		m.log.Debug("connection refused", "addr", remoteOf(raw).String(), "err", err)
		return
	}
	if err := m.add(m.newConn(raw, adm, false)); err != nil {
		m.log.Debug("connection dropped", "addr", remoteOf(raw).String(), "err", err)
	}
}
