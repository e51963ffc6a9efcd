package genesis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// replyTimeout is how long the answers to one broadcast are waited for.
const replyTimeout = 5 * time.Second

// Back-off between attempts: doubling from the first to the second, plus as much jitter.
const minBackoff, maxBackoff = time.Second, 15 * time.Second

var (
	// errMoot: the register is decided or closed already; look at the state again.
	errMoot = errors.New("decided meanwhile")
	// errNoQuorum: too few answered, or somebody else was faster.
	errNoQuorum = errors.New("no quorum answered")
)

// answer is what one node said, or why it did not.
type answer struct {
	from identity.ID
	msg  Message
	err  error
}

// propose runs one attempt at a register, from the own promise to the
// certificate. nil means that the register is decided and learned, with
// whatever value. Only one attempt of this node runs at a time.
func (d *Driver) propose(ctx context.Context, r Register, want Value) error {
	select {
	case d.attempt <- struct{}{}:
		defer func() { <-d.attempt }()
	case <-ctx.Done():
		return ctx.Err()
	}
	p, err := d.begin(r, want)
	if err != nil {
		return err
	}
	for p.Stage() == Preparing || p.Stage() == Accepting {
		if err := d.phase(ctx, p); err != nil {
			return err
		}
	}
	if p.Stage() != Complete {
		return errNoQuorum
	}
	return d.learn(p.Result())
}

// begin saves the own promise before anybody hears of the ballot.
func (d *Driver) begin(r Register, want Value) (*Proposal, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next, p, ok := d.core.Begin(d.state, r, want, d.higher)
	if !ok {
		return nil, errMoot
	}
	return p, d.save(next)
}

// phase sends the proposal's message to everybody and takes in answers until
// the proposal moves on.
func (d *Driver) phase(ctx context.Context, p *Proposal) error {
	stage, m := p.Stage(), p.Message()
	if stage == Accepting {
		reply, err := d.handle(ctx, d.opt.Self, m)
		if err != nil {
			return err
		}
		p.Deliver(d.opt.Self, reply)
	}
	ctx, cancel := context.WithTimeout(ctx, replyTimeout)
	answers, err := d.broadcast(ctx, m, d.connected())
	if err != nil {
		cancel()
		return err
	}
	defer func() {
		cancel()
		for range answers { // until all senders have ended
		}
	}()
	for p.Stage() == stage {
		a, more := <-answers
		if !more {
			return errNoQuorum
		}
		if err := d.take(p, a); err != nil {
			return err
		}
	}
	return nil
}

// take gives one answer to the learner and to the proposal.
func (d *Driver) take(p *Proposal, a answer) error {
	if a.err == nil {
		a.err = d.learn(a.msg)
	}
	if a.err != nil {
		d.opt.Log.Debug("no answer to a proposal", "peer", a.from, "err", a.err)
		return nil
	}
	p.Deliver(a.from, a.msg)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.higher = max(d.higher, p.Higher())
	if p.Stage() != Complete && p.Moot(d.state) {
		return errMoot
	}
	return nil
}

// connected returns the other nodes that can be reached now.
func (d *Driver) connected() []identity.ID {
	var out []identity.ID
	for _, m := range d.opt.View.Members() {
		if m.Connected && m.ID != d.opt.Self {
			out = append(out, m.ID)
		}
	}
	return out
}

// broadcast sends m to all at once. The channel holds room for every answer and
// is closed after the last one; cancelling ctx ends the senders.
func (d *Driver) broadcast(ctx context.Context, m Message, to []identity.ID) (<-chan answer, error) {
	raw, err := m.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	out := make(chan answer, len(to))
	var wg sync.WaitGroup
	for _, id := range to {
		wg.Go(func() { out <- d.ask(ctx, id, raw) })
	}
	go func() { wg.Wait(); close(out) }()
	return out, nil
}

func (d *Driver) ask(ctx context.Context, id identity.ID, raw []byte) answer {
	reply, err := d.opt.Transport.Send(ctx, id, raw)
	if err != nil {
		return answer{from: id, err: err}
	}
	m, err := DecodeMessage(reply)
	if err == nil && m.NetworkID != d.opt.Network.ID {
		err = invalid("answer from network_id %q", m.NetworkID)
	}
	return answer{from: id, msg: m, err: err}
}

// ProposeStarted wins Outcome=started for cluster uid, which must be the
// present decision and name this node first. It tries until the outcome is
// decided or ctx ends. nil: the cluster is this node's to start, now and after
// every restart. ErrAbandoned: never start it. To be called right before the
// first start of the server, with nothing slow in between.
func (d *Driver) ProposeStarted(ctx context.Context, uid UID) error {
	for tries := 0; ; tries++ {
		st := d.snapshot()
		dec := st.Decision
		switch {
		case dec == nil || dec.UID() != uid:
			return fmt.Errorf("start cluster %s: %w", uid, ErrAbandoned)
		case dec.Servers()[0] != d.opt.Self:
			return fmt.Errorf("start cluster %s: %w", uid, ErrNotNamed)
		case dec.Result() == Started:
			return nil
		}
		err := d.propose(ctx, Register{OutcomeRegister, dec.Epoch()}, Value{UID: uid, Outcome: Started})
		if err == nil || d.snapshot().Decision != dec {
			continue
		}
		pause, jerr := d.backoff(tries)
		if jerr != nil {
			return jerr
		}
		select {
		case <-d.opt.Clock.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("start cluster %s: %w (last: %w)", uid, ctx.Err(), err)
		}
	}
}

// backoff is how long to wait after a number of failed attempts.
func (d *Driver) backoff(tries int) (time.Duration, error) {
	base := min(maxBackoff, minBackoff<<min(tries, 10))
	j, err := d.jitter(base)
	return base + j, err
}

// jitter draws from [0, limit).
func (d *Driver) jitter(limit time.Duration) (time.Duration, error) {
	var b [8]byte
	if _, err := io.ReadFull(d.opt.Rand, b[:]); err != nil {
		return 0, fmt.Errorf("read randomness: %w", err)
	}
	return time.Duration(binary.BigEndian.Uint64(b[:]) % uint64(limit)), nil
}
