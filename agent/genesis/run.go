package genesis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Pace of talking to nodes that know less or more than this one.
const minTalk, maxTalk = time.Second, time.Minute

// maxPause bounds one pause of the loop; nothing depends on its length.
const maxPause = time.Minute

// loop is what Run remembers between two turns. Nothing in it matters for safety.
type loop struct {
	d        *Driver
	elector  Elector
	patience Patience
	tries    int           // failed attempts in a row
	notUntil time.Duration // no attempt before
	problem  string        // why the last attempt failed, when it was not for want of answers
	talks    map[identity.ID]*talk
}

// talk is the exchange of knowledge with one node.
type talk struct {
	about string        // what made it necessary; a change starts afresh
	next  time.Duration // not before
	pause time.Duration
	heard bool // it has answered about this
}

// Run takes part in the agreement until ctx ends, which is nil. Failures of
// disk and network are waited out and shown in Status.
func (d *Driver) Run(ctx context.Context) error {
	j, err := d.jitter(RankDelay / 2)
	if err != nil {
		return err
	}
	l := &loop{d: d, talks: map[identity.ID]*talk{}, patience: Patience{Jitter: j},
		elector: Elector{Self: d.opt.Self, Network: d.opt.Network, Jitter: j}}
	for ctx.Err() == nil {
		// Before looking, so that no change is missed.
		viewChanged, stateChanged := d.opt.View.Changed(), d.Changed()
		pause, err := l.turn(ctx)
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-viewChanged:
		case <-stateChanged:
		case <-d.opt.Clock.After(pause):
		}
	}
	return nil
}

// turn looks at everything afresh, does at most one attempt, and says when to
// look again at the latest.
func (l *loop) turn(ctx context.Context) (time.Duration, error) {
	members := l.d.opt.View.Members()
	next := l.talk(ctx, members)
	st, now := l.d.snapshot(), l.d.opt.Clock.Now()
	verdict, r, want, err := l.judge(now, st, members)
	if err != nil {
		return 0, err
	}
	if verdict.Due && l.problem != "" {
		verdict.Reason = l.problem
	}
	l.d.setWaiting(verdict.Reason)
	if verdict.Due && now >= l.notUntil {
		if err := l.try(ctx, r, want); err != nil {
			return 0, err
		}
		return minTalk, nil
	}
	for _, at := range []time.Duration{verdict.At, l.notUntil} {
		if at > now {
			next = min(next, at-now)
		}
	}
	return max(next, time.Millisecond), nil
}

// judge says whether to propose something, and what.
func (l *loop) judge(now time.Duration, st State, members []Member) (v Verdict, r Register, want Value, err error) {
	self := l.d.opt.Self
	if dec := st.Decision; dec != nil {
		if dec.Result() == Started || dec.Servers()[0] == self || dec.UID() == st.Own {
			return Verdict{}, r, want, nil
		}
		if st.abstains() {
			return Verdict{}, r, want, nil
		}
		heard, rank := false, 0
		for _, m := range members {
			// Anybody can say that it is the server; only who was named can be.
			heard = heard || m.Server && m.ClusterUID == dec.UID().String() && slices.Contains(dec.Servers(), m.ID)
			if m.Connected && !m.Abstains && m.ID != dec.Servers()[0] && m.ID.Compare(self) < 0 {
				rank++
			}
		}
		v = l.patience.Look(now, dec.UID(), heard, rank)
		return v, Register{OutcomeRegister, dec.Epoch()}, Value{UID: dec.UID(), Outcome: Abandoned}, nil
	}
	if !st.Own.IsZero() {
		return Verdict{Reason: fmt.Sprintf("waiting for a machine that can prove cluster %s", st.Own)}, r, want, nil
	}
	if id, ok := l.claimant(st, members); ok {
		return Verdict{Reason: fmt.Sprintf("node %s belongs to a cluster already, asking it for the proof", id.Short())}, r, want, nil
	}
	if st.abstains() {
		return Verdict{Reason: "this machine may have voted before and forgot it: waiting for a machine that can prove a cluster"}, r, want, nil
	}
	v = l.elector.Look(now, members)
	if v.Due {
		v.Reason = "asking the other machines to agree on the cluster"
		var seed UID
		if _, err := io.ReadFull(l.d.opt.Rand, seed[:]); err != nil {
			return v, r, want, fmt.Errorf("draw cluster uid: %w", err)
		}
		want = NewValue(seed, []identity.ID{self})
	}
	return v, Register{GenesisRegister, st.epoch()}, want, nil
}

// claimant returns a connected node that says it belongs to a cluster which is
// not proven here yet. It is asked first: proposing would be safe, and useless.
func (l *loop) claimant(st State, members []Member) (identity.ID, bool) {
	for _, m := range members {
		if !m.Connected || m.ID == l.d.opt.Self || m.ClusterUID == "" || abandoned(st, m) {
			continue
		}
		if t := l.talks[m.ID]; t == nil || !t.heard {
			return m.ID, true
		}
	}
	return identity.ID{}, false
}

// abandoned reports whether the cluster that m claims is known to be given up.
func abandoned(st State, m Member) bool {
	return st.Prior != nil && st.Prior.Value.UID.String() == m.ClusterUID
}

// try runs one attempt and sets the pace of the next.
func (l *loop) try(ctx context.Context, r Register, want Value) error {
	err := l.d.propose(ctx, r, want)
	if err == nil || errors.Is(err, errMoot) {
		l.tries, l.problem = 0, ""
		return nil
	}
	if ctx.Err() != nil {
		return nil
	}
	l.d.opt.Log.Debug("attempt failed", "epoch", r.Epoch, "err", err)
	l.problem = ""
	if !errors.Is(err, errNoQuorum) {
		l.problem = "cannot vote: " + err.Error()
	}
	pause, jerr := l.d.backoff(l.tries)
	l.tries++
	l.notUntil = l.d.opt.Clock.Now() + pause
	return jerr
}

// talk exchanges knowledge with the nodes that need it or have it, and says
// when to look again.
func (l *loop) talk(ctx context.Context, members []Member) time.Duration {
	st, now, next := l.d.snapshot(), l.d.opt.Clock.Now(), maxPause
	var due []identity.ID
	for _, m := range members {
		about, once := l.needs(st, m)
		if about == "" {
			delete(l.talks, m.ID)
			continue
		}
		t := l.talks[m.ID]
		if t == nil || t.about != about {
			t = &talk{about: about, next: now, pause: minTalk}
			l.talks[m.ID] = t
		}
		if once && t.heard {
			continue
		}
		if now >= t.next {
			due = append(due, m.ID)
			t.next, t.pause = now+t.pause, min(2*t.pause, maxTalk)
		}
		next = min(next, t.next-now)
	}
	l.forget(members)
	if len(due) == 0 {
		return next
	}
	if err := l.exchange(ctx, st, due); err != nil {
		l.d.opt.Log.Warn("exchange of decisions failed", "err", err)
	}
	return next
}

// needs says why to talk to m, "" for no reason: one of us knows of a cluster,
// an outcome or an epoch that the other does not. With once, its first answer settles it.
func (l *loop) needs(st State, m Member) (about string, once bool) {
	if !m.Connected || m.ID == l.d.opt.Self {
		return "", false
	}
	mine, rival := "", ""
	if st.Decision != nil {
		mine = st.Decision.UID().String()
	}
	if st.Rival != nil {
		rival = st.Rival.UID().String()
	}
	switch {
	case m.ClusterUID == "" && mine == "" && m.Epoch <= st.epoch():
		return "", false
	case m.ClusterUID == rival && rival != "":
		return "rival" + mine, true // it may not know of this one
	case m.ClusterUID != mine:
		return "cluster" + m.ClusterUID + mine, false
	case mine != "" && m.Server && st.Decision.Result() == Open:
		return "outcome" + mine, false
	case m.Epoch > st.epoch():
		return fmt.Sprint("epoch", m.Epoch), false
	case rival != "":
		// It may have been with the winner from the start and never have met the
		// other cluster; nothing that it shows could tell.
		return "conflict" + mine + rival, true
	}
	return "", false
}

// exchange tells everybody in due what this node can prove and learns what they can.
func (l *loop) exchange(ctx context.Context, st State, due []identity.ID) error {
	ctx, cancel := context.WithTimeout(ctx, replyTimeout)
	defer cancel()
	answers, err := l.d.broadcast(ctx, l.d.core.Know(st), due)
	if err != nil {
		return err
	}
	var errs []error
	for a := range answers {
		if a.err != nil {
			l.d.opt.Log.Debug("no answer", "peer", a.from, "err", a.err)
			continue
		}
		if err := l.d.learn(a.msg); err != nil {
			errs = append(errs, fmt.Errorf("from %s: %w", a.from.Short(), err))
		}
		l.talks[a.from].heard = true
	}
	return errors.Join(errs...)
}

// forget drops what is remembered of nodes that are gone.
func (l *loop) forget(members []Member) {
	for id := range l.talks {
		if !slices.ContainsFunc(members, func(m Member) bool { return m.ID == id }) {
			delete(l.talks, id)
		}
	}
}
