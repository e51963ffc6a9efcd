package datapath

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/session"
)

// SessionProtocol names the streams on which members agree on keys for the direct way.
const SessionProtocol = "/kairos/session/1"

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
// has left meanwhile: it is asked again, some times.
func (w *direct) mustShake(now time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.prober.mtu == 0 && w.prober.tries >= probeTries && w.doubts < doubtMost {
		return true
	}
	return (w.wanted || now >= w.turn) && w.session.NeedsHandshake(now)
}

// pauseAfter is how long the next handshake waits at least after the one that is due.
func (w *direct) pauseAfter() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.prober.mtu > 0 || w.prober.tries < probeTries {
		return 0
	}
	w.doubts++
	return shakePause << w.doubts
}

// party is this end of a handshake, with an index that is not in use.
func (w *direct) party() (session.Party, error) {
	var raw [4]byte
	for {
		if _, err := io.ReadFull(rand.Reader, raw[:]); err != nil {
			return session.Party{}, err
		}
		index := binary.BigEndian.Uint32(raw[:])
		if _, taken := (*w.d.arrivals.Load())[index]; !taken {
			return session.Party{
				Self: w.d.self, Peer: w.peer.id, PSK: w.d.direct.PSK, Suites: w.d.direct.Suites, Index: index, Rand: rand.Reader,
			}, nil
		}
	}
}

// shake agrees on keys by a handshake that this end begins.
func (w *direct) shake() error {
	ctx, cancel := context.WithTimeout(w.ctx, shakeTimeout)
	defer cancel()
	s, err := w.d.direct.Open(ctx, w.peer.id)
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	party, err := w.party()
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
	w.d.addKeys(keys, w)
	w.d.dropKeys(w.session.InstallInitiated(keys, w.d.now()))
	w.agreed()
	w.restart()
	return s.Close()
}

// HandleSession answers a handshake that the authenticated peer id began on a stream
// of SessionProtocol, and closes the stream.
func (d *Datapath) HandleSession(id identity.ID, s Stream) {
	if err := d.answerSession(id, s); err != nil {
		d.log.Debug("answering a handshake of peer failed", "peer", id.Short(), "err", err)
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

// errNoDirect refuses handshakes where there is no way that keys would be for.
var errNoDirect = errors.New("there is no direct way to the peer")

func (d *Datapath) answerSession(id identity.ID, s Stream) error {
	timer := time.AfterFunc(shakeTimeout, func() { _ = s.Reset() })
	defer timer.Stop()
	message := make([]byte, session.HandshakeSize)
	if _, err := io.ReadFull(s, message); err != nil {
		return fmt.Errorf("read handshake: %w", err)
	}
	w := d.wayTo(id)
	if w == nil {
		return errNoDirect
	}
	party, err := w.party()
	if err != nil {
		return err
	}
	keys, answer, err := session.Respond(party, message)
	if err != nil {
		return err
	}
	d.addKeys(keys, w)
	d.dropKeys(w.session.InstallAnswered(keys, d.now()))
	w.agreed()
	if _, err := s.Write(answer); err != nil {
		return fmt.Errorf("write handshake: %w", err)
	}
	return nil
}

func (d *Datapath) wayTo(id identity.ID) *direct {
	if p := (*d.peers.Load())[id]; p != nil {
		if link := p.link.Load(); link != nil {
			return link.direct
		}
	}
	return nil
}

func (d *Datapath) addKeys(k *session.Keys, w *direct) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w.ctx.Err() != nil {
		return
	}
	next := maps.Clone(*d.arrivals.Load())
	next[k.Index()] = arrival{k, w}
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
