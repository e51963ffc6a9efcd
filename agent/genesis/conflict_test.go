package genesis

import (
	"slices"
	"testing"
	"time"
)

// The operator declared 1 node and booted 4 in two places: the only way to two
// clusters. Every node must see it and name the same winner.
func TestDriverConflict(t *testing.T) {
	bubble(t, "two births under a false n", func(t *testing.T) {
		m := newMesh(t, 1, 4)
		for _, n := range m.nodes {
			n.start()
		}
		m.join(1, m.nodes[0], m.nodes[1])
		m.join(2, m.nodes[2], m.nodes[3])
		defer m.stopAll()
		all := m.settle(time.Minute)
		a, b := all[0].Decision, all[2].Decision
		if a == nil || b == nil || a.UID() == b.UID() {
			t.Fatal("no two clusters to begin with")
		}
		for i, owner := range []int{0, 2} {
			if err := m.nodes[owner].driver.ProposeStarted(t.Context(), []UID{a.UID(), b.UID()}[i]); err != nil {
				t.Fatal(err)
			}
		}
		m.join(0, m.nodes...)
		want := Conflict{Winner: a.UID(), Loser: b.UID()}
		if better(b, a) {
			want = Conflict{Winner: b.UID(), Loser: a.UID()}
		}
		for i, s := range m.settle(5 * time.Minute) {
			if s.Conflict == nil || *s.Conflict != want {
				t.Errorf("node %d: conflict %v, want %v", i, s.Conflict, want)
			}
		}
	})
}

// A node of the winning cluster may come back when everybody else has seen the
// conflict and shows the winner already: it must be told all the same.
func TestDriverConflictReachesWhoWasAway(t *testing.T) {
	bubble(t, "away during the conflict", func(t *testing.T) {
		m := newMesh(t, 1, 4)
		for _, n := range m.nodes {
			n.start()
		}
		winners, losers := m.nodes[:2], m.nodes[2:]
		m.join(1, winners...)
		m.join(2, losers...)
		defer m.stopAll()
		all := m.settle(time.Minute)
		if better(all[2].Decision, all[0].Decision) {
			winners, losers = losers, winners
		}
		away := winners[0]
		met := slices.Concat(losers, winners[1:])
		m.join(3, met...)
		m.settle(5 * time.Minute)
		for i, n := range met {
			if s := n.driver.Status(); s.Conflict == nil || s.Decision.UID() != s.Conflict.Winner {
				t.Fatalf("node %d of those who met: %+v", i, s)
			}
		}
		m.join(0, m.nodes...)
		m.settle(5 * time.Minute)
		if s := away.driver.Status(); s.Conflict == nil {
			t.Errorf("who was away knows of no conflict: %+v", s)
		}
	})
}
