package datapath

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/secret"
	"github.com/kairos-io/kairos/overlay/session"
)

// Protocols of streams; a number changes with what is on them.
const (
	Protocol        = "/kairos/data/3"    // frames: packets
	SessionProtocol = "/kairos/session/2" // one handshake
)

// Handshakes.
const (
	shakeTimeout = 10 * time.Second
	shakePause   = time.Second // after one that failed; it doubles
	shakeSlow    = time.Minute
	doubtMost    = 5 // handshakes for want of an answer to probes
)

// mustShake: of two members that have just met one begins, and the other one where no
// keys came of that: they may have met another time in between. Later, whoever has
// packets for the other; keys that nobody uses may end.
//
// Keys with which nothing was ever answered may be those of a connection that the peer
// has left meanwhile: it is asked again, some times. The caller holds mu.
func (p *peer) mustShake(now time.Duration) bool {
	if p.doubtful(now) {
		return true
	}
	return (p.wanted.Load() || now >= p.turn) && p.session.NeedsHandshake(now)
}

func (p *peer) doubtful(now time.Duration) bool {
	return p.doubts < doubtMost && p.session.Sealing(now) != nil && p.paths.Unanswered()
}

// handshake begins one if it is due. The caller holds mu.
func (p *peer) handshake(now time.Duration) {
	if p.shaking || now < p.shakeAt || p.ctx.Err() != nil || !p.mustShake(now) {
		return
	}
	p.shaking = true
	wait := time.Duration(0)
	if p.doubtful(now) {
		p.doubts++
		wait = shakePause << p.doubts
	}
	p.d.running.Go(func() {
		err := p.shake()
		p.shaken(err, wait)
	})
}

// shaken says how a handshake ended, and how long the next one waits at least.
func (p *peer) shaken(err error, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shaking, p.trouble = false, ""
	if err != nil && p.ctx.Err() == nil {
		p.d.log.Debug("agreeing on keys with peer failed", "peer", p.account.id.Short(), "err", err)
		p.trouble = whyNotAgreed
		wait, p.pause = max(wait, p.pause), min(2*p.pause, shakeSlow)
	} else {
		p.pause = shakePause
	}
	p.shakeAt = p.d.now() + wait
	p.nudge()
}

// shakeNext is when the next handshake may be due. The caller holds mu.
func (p *peer) shakeNext(now time.Duration) time.Duration {
	if p.shaking {
		return math.MaxInt64 // its end wakes run
	}
	if p.mustShake(now) {
		return max(p.shakeAt, now)
	}
	next, _ := p.session.Next()
	switch {
	case p.wanted.Load():
		return max(next, p.shakeAt)
	case next == 0:
		return p.turn
	}
	return math.MaxInt64
}

// party is this end of a handshake, with an index that is not in use. psk is the secret
// of the stream that it is on.
func (p *peer) party(psk secret.Key) (session.Party, error) {
	var raw [4]byte
	for {
		if _, err := io.ReadFull(rand.Reader, raw[:]); err != nil {
			return session.Party{}, err
		}
		index := binary.BigEndian.Uint32(raw[:])
		if _, taken := (*p.d.arrivals.Load())[index]; !taken {
			return session.Party{
				Self: p.d.self, Peer: p.account.id, PSK: psk, Suites: p.d.suites, Index: index, Rand: rand.Reader,
			}, nil
		}
	}
}

// shake agrees on keys by a handshake that this end begins.
func (p *peer) shake() error {
	ctx, cancel := context.WithTimeout(p.ctx, shakeTimeout)
	defer cancel()
	s, err := p.d.network.OpenSession(ctx, p.account.id)
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	party, err := p.party(s.Secret())
	if err != nil {
		return err
	}
	handshake, message, err := session.Initiate(party)
	if err != nil {
		return err
	}
	if _, err := s.Write(message); err != nil {
		return fmt.Errorf("write handshake: %w", err)
	}
	answer := make([]byte, session.HandshakeSize)
	if _, err := io.ReadFull(s, answer); err != nil {
		return fmt.Errorf("read handshake: %w", err)
	}
	keys, err := handshake.Finish(answer)
	if err != nil {
		return err
	}
	p.d.addKeys(keys, p)
	p.d.dropKeys(p.session.InstallInitiated(keys, p.d.now()))
	p.agreed()
	p.restart()
	return s.Close()
}

// restart asks the paths that are not alive anew: there are new keys.
func (p *peer) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paths.Restart(p.d.now())
	p.nudge()
}

// HandleSession answers a handshake that the authenticated peer id began on a stream
// of SessionProtocol, and closes the stream.
func (d *Datapath) HandleSession(id identity.ID, s SessionStream) {
	if err := d.answerSession(id, s); err != nil {
		d.log.Debug("answering a handshake of peer failed", "peer", id.Short(), "err", err)
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

// errNoDatagrams refuses handshakes where there is nothing that keys would be for.
var errNoDatagrams = errors.New("there are no datagrams to the peer")

func (d *Datapath) answerSession(id identity.ID, s SessionStream) error {
	timer := time.AfterFunc(shakeTimeout, func() { _ = s.Reset() })
	defer timer.Stop()
	message := make([]byte, session.HandshakeSize)
	if _, err := io.ReadFull(s, message); err != nil {
		return fmt.Errorf("read handshake: %w", err)
	}
	p := d.peer(id)
	if p == nil || d.network == nil {
		return errNoDatagrams
	}
	party, err := p.party(s.Secret())
	if err != nil {
		return err
	}
	keys, answer, err := session.Respond(party, message)
	if err != nil {
		return err
	}
	d.addKeys(keys, p)
	d.dropKeys(p.session.InstallAnswered(keys, d.now()))
	p.agreed()
	p.nudge()
	if _, err := s.Write(answer); err != nil {
		return fmt.Errorf("write handshake: %w", err)
	}
	return nil
}

// arrival is where packets with one index belong.
type arrival struct {
	keys *session.Keys
	to   *peer
}

func (d *Datapath) addKeys(k *session.Keys, p *peer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.ctx.Err() != nil {
		return
	}
	next := maps.Clone(*d.arrivals.Load())
	next[k.Index()] = arrival{k, p}
	d.arrivals.Store(&next)
}

func (d *Datapath) dropKeys(done []*session.Keys) {
	if len(done) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	next := maps.Clone(*d.arrivals.Load())
	for _, k := range done {
		delete(next, k.Index())
	}
	d.arrivals.Store(&next)
}
