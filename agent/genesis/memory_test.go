package genesis

import (
	"strings"
	"testing"
	"time"
)

// halfBorn makes three machines of three declared, of which the first two decide and
// start cluster a. Then the second is put back to a moment before it voted, under the
// same key, and moves to where only the third is, which has heard of nothing (fault A8).
func halfBorn(t *testing.T) (m *mesh, a UID) {
	m = newMesh(t, 3, 3)
	for _, n := range m.nodes {
		n.start()
	}
	snapshot, err := m.nodes[1].disk.Load()
	if err != nil {
		t.Fatal(err)
	}
	m.join(1, m.nodes[0], m.nodes[1])
	a = m.settle(time.Minute)[0].Decision.UID()
	if err := m.nodes[0].driver.ProposeStarted(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	m.settle(time.Minute)
	m.nodes[1].stop()
	m.nodes[1].disk = &memStore{state: snapshot}
	m.nodes[1].start()
	return m, a
}

// A machine whose overlay still knows of a pinned address abstains, as package role
// plans it: no second cluster comes of the snapshot, and it finds back to the first.
func TestRestoredSnapshotAbstains(t *testing.T) {
	bubble(t, "a restored snapshot", func(t *testing.T) {
		m, a := halfBorn(t)
		defer m.stopAll()
		if err := m.nodes[1].driver.Abstain(EveryEpoch); err != nil {
			t.Fatal(err)
		}
		m.join(2, m.nodes[1], m.nodes[2])
		all := m.settle(time.Hour)
		for i, s := range all[1:] {
			if s.Decision != nil || s.Waiting == "" {
				t.Errorf("node %d: decision %v, waits for %q", i+1, s.Decision, s.Waiting)
			}
		}
		if !strings.Contains(all[1].Waiting, "forgot it") || !strings.Contains(all[2].Waiting, "see 1 and 1 that cannot vote") {
			t.Errorf("wait for %q and %q", all[1].Waiting, all[2].Waiting)
		}
		if !all[1].Abstains || all[2].Abstains {
			t.Errorf("abstain: %v and %v", all[1].Abstains, all[2].Abstains)
		}
		m.join(1, m.nodes...)
		for i, s := range m.settle(10 * time.Minute) {
			if s.Decision == nil || s.Decision.UID() != a || s.Conflict != nil {
				t.Errorf("node %d after all met: %+v", i, s)
			}
		}
	})
}

// A machine that is shown a vote of its own which it does not remember abstains by
// itself, before it votes on anything else.
func TestRestoredSnapshotMeetsItsVote(t *testing.T) {
	bubble(t, "a vote that is not remembered", func(t *testing.T) {
		m, a := halfBorn(t)
		defer m.stopAll()
		m.join(1, m.nodes[0], m.nodes[1])
		if s := m.settle(time.Minute)[1]; s.Decision == nil || s.Decision.UID() != a || !s.Abstains {
			t.Errorf("%+v", s)
		}
	})
}

// A whole disk put back in time, the overlay's memory included, is what cannot be told
// from a new machine: two clusters start. They are told wherever they meet, and neither
// is given up by itself.
func TestDiskPutBackInTime(t *testing.T) {
	bubble(t, "a disk put back in time", func(t *testing.T) {
		m, a := halfBorn(t)
		defer m.stopAll()
		m.join(2, m.nodes[1], m.nodes[2])
		b := m.settle(5 * time.Minute)[2].Decision
		if b == nil || b.UID() == a {
			t.Fatalf("this became impossible, which README.md denies: %+v", b)
		}
		for _, n := range m.nodes[1:] {
			if n.key.ID() == b.Servers()[0] {
				if err := n.driver.ProposeStarted(t.Context(), b.UID()); err != nil {
					t.Fatal(err)
				}
				n.serve()
			}
		}
		m.settle(time.Minute)
		m.join(1, m.nodes...)
		for i, s := range m.settle(10 * time.Minute) {
			own := b.UID()
			if i == 0 {
				own = a
			}
			if s.Decision == nil || s.Decision.UID() != own || s.Conflict == nil {
				t.Errorf("node %d: decision %v, conflict %+v, want to stay with %s and to tell", i, s.Decision, s.Conflict, own)
			}
		}
	})
}

// serve makes the node publish a running server.
func (n *meshNode) serve() {
	n.mesh.mu.Lock()
	n.server = true
	n.mesh.mu.Unlock()
	n.mesh.join(n.group)
}
