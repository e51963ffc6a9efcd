package genesis

import (
	"slices"
	"testing"
	"time"
)

// The operator declared 1 node and booted 4 in two places: the only way to two
// clusters. Every node must see it and stay where it is.
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
		for i, n := range m.nodes { // they run k3s in it
			if err := n.driver.Pin([]UID{a.UID(), b.UID()}[i/2]); err != nil {
				t.Fatal(err)
			}
		}
		m.join(0, m.nodes...)
		for i, s := range m.settle(5 * time.Minute) {
			want := Conflict{Own: a.UID(), Rival: b.UID()}
			if i >= 2 {
				want = Conflict{Own: b.UID(), Rival: a.UID()}
			}
			if s.Conflict == nil || *s.Conflict != want || s.Decision.UID() != want.Own {
				t.Errorf("node %d: conflict %v, want %v", i, s.Conflict, want)
			}
		}
	})
}

// A node may come back when everybody else has seen the conflict: it must be told
// all the same.
func TestDriverConflictReachesWhoWasAway(t *testing.T) {
	bubble(t, "away during the conflict", func(t *testing.T) {
		m := newMesh(t, 1, 4)
		for _, n := range m.nodes {
			n.start()
		}
		ours, theirs := m.nodes[:2], m.nodes[2:]
		m.join(1, ours...)
		m.join(2, theirs...)
		defer m.stopAll()
		m.settle(time.Minute)
		away := ours[0]
		met := slices.Concat(theirs, ours[1:])
		m.join(3, met...)
		m.settle(5 * time.Minute)
		for i, n := range met {
			if s := n.driver.Status(); s.Conflict == nil {
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
