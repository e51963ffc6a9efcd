package datapath

import (
	"testing"
	"time"
)

// What a prober says over time, told as a story.
func TestProber(t *testing.T) {
	type step struct {
		name         string
		after        time.Duration // since the step before
		answer       bool          // to the last probe; else it is asked what is due
		idle         bool          // nobody had packets meanwhile
		refused      bool
		probe, down  bool
		up           bool // afterwards
		nextNotAfter time.Duration
	}
	tests := map[string][]step{
		"a way that answers": {
			{name: "at once", probe: true, nextNotAfter: probeFirst},
			{name: "the answer", after: 20 * time.Millisecond, answer: true, up: true, nextNotAfter: probeSteady},
			{name: "too early", after: probeSteady - 1, up: true, nextNotAfter: probeSteady},
			{name: "the next one", after: 1, probe: true, up: true, nextNotAfter: probeWait},
			{name: "the answer", after: time.Millisecond, answer: true, up: true, nextNotAfter: probeSteady},
		},
		"a way that nobody uses": {
			{name: "at once", probe: true, nextNotAfter: probeFirst},
			{name: "the answer", answer: true, idle: true, up: true, nextNotAfter: probeSteady},
			{name: "silence", after: probeSteady, idle: true, up: true, nextNotAfter: probeSteady},
			{name: "more of it", after: time.Hour, idle: true, up: true, nextNotAfter: probeSteady},
			{name: "used", after: probeSteady, probe: true, up: true, nextNotAfter: probeWait},
			{name: "lost", after: probeWait, idle: true, probe: true, up: true, nextNotAfter: probeWait},
		},
		"one that does not": {
			{name: "first", probe: true, nextNotAfter: probeFirst},
			{name: "second", after: probeFirst, probe: true, nextNotAfter: 2 * probeFirst},
			{name: "third", after: 2 * probeFirst, probe: true, nextNotAfter: 4 * probeFirst},
			{name: "later", after: time.Hour, probe: true, nextNotAfter: 8 * probeFirst},
		},
		"one that stops to answer": {
			{name: "first", probe: true, nextNotAfter: probeFirst},
			{name: "the answer", answer: true, up: true, nextNotAfter: probeSteady},
			{name: "lost", after: probeSteady, probe: true, up: true, nextNotAfter: probeWait},
			{name: "lost again", after: probeWait, probe: true, up: true, nextNotAfter: probeWait},
			{name: "twice", after: probeWait, probe: true, up: true, nextNotAfter: probeWait},
			{name: "given up", after: probeWait, probe: true, down: true, nextNotAfter: probeSlow},
			{name: "back", after: time.Millisecond, answer: true, up: true, nextNotAfter: probeSteady},
		},
		"one that refuses a packet": {
			{name: "first", probe: true, nextNotAfter: probeFirst},
			{name: "the answer", answer: true, up: true, nextNotAfter: probeSteady},
			{name: "refused", refused: true, nextNotAfter: probeFirst},
			{name: "a late answer", answer: true, nextNotAfter: probeFirst},
			{name: "again", after: probeFirst, probe: true, nextNotAfter: probeFirst},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			var p prober
			now := time.Duration(0)
			for _, s := range steps {
				now += s.after
				p.used = p.used || !s.idle
				switch {
				case s.answer:
					p.answered(p.nonce, now)
				case s.refused:
					p.refused(now)
				default:
					if _, probe, down := p.due(now); probe != s.probe || down != s.down {
						t.Errorf("%s: probe %v, down %v", s.name, probe, down)
					}
				}
				if p.up != s.up || p.next-now > s.nextNotAfter {
					t.Errorf("%s: up %v, next after %v", s.name, p.up, p.next-now)
				}
			}
		})
	}
}

func TestProberBelievesOneAnswer(t *testing.T) {
	var p prober
	for now := time.Duration(0); p.nonce < inFlight+1; now = p.next {
		p.due(now)
	}
	for name, nonce := range map[string]uint64{"to a probe long ago": 1, "to none": p.nonce + 1} {
		if p.answered(nonce, time.Second) || p.up {
			t.Errorf("an answer %s counts", name)
		}
	}
	// A way may be slower than the pace of probes.
	if !p.answered(2, probeFirst+time.Second) || p.rtt != time.Second {
		t.Errorf("the answer does not count: %+v", p)
	}
	if p.answered(2, time.Second) || p.answered(3, time.Second) {
		t.Error("it counts twice")
	}
}
