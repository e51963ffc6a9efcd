package assess

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// moment is what is found at one second.
type moment struct {
	at       time.Duration
	verdict  Verdict // of Judge; empty: the look failed
	restarts int     // of the agent, so far
	want     Verdict
}

func TestSteady(t *testing.T) {
	const limit = 2 * time.Minute
	s := time.Second
	tests := []struct {
		name    string
		moments []moment
	}{
		{"good for long enough", []moment{{0, Waiting, 0, Waiting}, {10 * s, Good, 0, Waiting}, {39 * s, Good, 0, Waiting}, {40 * s, Good, 0, Good}}},
		{"a lapse starts it anew", []moment{{0, Good, 0, Waiting}, {20 * s, Waiting, 0, Waiting}, {30 * s, Good, 0, Waiting}, {59 * s, Good, 0, Waiting}, {60 * s, Good, 0, Good}}},
		{"a restart starts it anew, though nobody saw the lapse", []moment{{0, Good, 3, Waiting}, {20 * s, Good, 4, Waiting}, {49 * s, Good, 4, Waiting}, {50 * s, Good, 4, Good}}},
		{"a daemon that never stays up", []moment{{0, Good, 0, Waiting}, {60 * s, Good, 1, Waiting}, {120 * s, Good, 2, Waiting}, {179 * s, Good, 3, Waiting}, {180 * s, Good, 4, Bad}}},
		{"bad is bad at once", []moment{{0, Bad, 0, Bad}}},
		{"good by grace, after the limit", []moment{{120 * s, Good, 0, Waiting}, {150 * s, Good, 0, Good}}},
		{"not seen at the limit", []moment{{115 * s, Waiting, 0, Waiting}, {121 * s, "", 0, Waiting}, {125 * s, Bad, 0, Bad}}},
		{"not seen while it is good", []moment{{100 * s, Good, 0, Waiting}, {121 * s, "", 0, Waiting}, {130 * s, Good, 0, Good}}},
		{"not seen for a minute after the limit", []moment{{115 * s, Waiting, 0, Waiting}, {120 * s, "", 0, Waiting}, {174 * s, "", 0, Waiting}, {175 * s, "", 0, Bad}}},
		{"never seen", []moment{{5 * s, "", 0, Waiting}, {119 * s, "", 0, Waiting}, {120 * s, "", 0, Bad}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			steady := Steady{For: Settle}
			for _, m := range tt.moments {
				units := []Unit{{Name: UnitAgent, Active: UnitActive, Restarts: m.restarts}}
				got := steady.Blind(errors.New("no answer"), Clock{m.at, limit})
				if m.verdict != "" {
					got = steady.Hold(Finding{Verdict: m.verdict, Reason: "because"}, units, Clock{m.at, limit})
				}
				if got.Verdict != m.want {
					t.Errorf("at %s: %+v, want %s", m.at, got, m.want)
				}
				if got.Verdict == Bad && m.verdict == Good && !strings.Contains(got.Reason, UnitAgent+" does not stay up") {
					t.Errorf("at %s: %q", m.at, got.Reason)
				}
			}
		})
	}
}
