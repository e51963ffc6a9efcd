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
	first, _, _ := p.due(0)
	second, _, _ := p.due(probeFirst)
	for name, nonce := range map[string]uint64{"an earlier probe's": first, "of none": second + 1} {
		if p.answered(nonce, time.Second) || p.up {
			t.Errorf("an answer %s counts", name)
		}
	}
	if !p.answered(second, probeFirst+time.Millisecond) || p.rtt != time.Millisecond {
		t.Errorf("the answer does not count: %+v", p)
	}
	if p.answered(second, time.Second) {
		t.Error("it counts twice")
	}
}
