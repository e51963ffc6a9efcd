package genesis

import (
	"strings"
	"testing"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
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
		if err := m.nodes[1].driver.Abstain(agentapi.EveryEpoch); err != nil {
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

// Nodes lose all that they knew at any moment, and abstain from then on: whatever is
// decided meanwhile, it stays one cluster, and who still votes brings it about.
func TestRandomSchedulesWithAmnesia(t *testing.T) {
	runs := min(*simRuns, 4000)
	if testing.Short() || raceEnabled {
		runs = min(runs, 500)
	}
	lost, born := 0, 0
	for seed := *simSeed; seed < *simSeed+uint64(runs); seed++ {
		n := 2 + int(seed%4)
		s := newSim(t, seed, n, 2*(n/2+1)-1) // 2Q-1: Q-1 of them may be lost
		violation = ""
		parted := false
		for range 250 {
			s.step()
			if i := s.rng.IntN(len(s.nodes)); i < s.net.Quorum-1 && s.rng.IntN(100) == 0 {
				s.forget(i)
				lost++
			}
			if len(s.births) == 1 && !parted {
				parted = true
				s.part()
			}
			if len(s.births) > 1 {
				violation = "I1: two clusters started"
			}
			if violation != "" {
				s.fatalf(seed, "%s", violation)
			}
		}
		born += len(s.births)
		if s.heal(seed); violation != "" || len(s.births) > 1 {
			s.fatalf(seed, "%s, %d clusters after healing", violation, len(s.births))
		}
	}
	t.Logf("RESULT %d schedules, %d births before healing, %d times all was forgotten", runs, born, lost)
	if lost == 0 || born == 0 {
		t.Error("the schedules do not exercise forgetting")
	}
}

// forget takes everything from node i but its key; then it abstains, as package role
// has it.
func (s *sim) forget(i int) {
	s.crash(i)
	fresh, err := s.nodes[i].core.Adopt(State{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.nodes[i].disk = s.nodes[i].core.Abstain(fresh, agentapi.EveryEpoch)
}

// part is the worst moment: a cluster has just been born, all forget that may, and with
// those who have not heard of it they are cut off from who knows.
func (s *sim) part() {
	for i := range s.net.Quorum - 1 {
		s.forget(i)
	}
	s.pool = nil
	for i := range s.nodes {
		for j := range s.nodes {
			s.down[i][j] = (s.nodes[i].disk.Decision == nil) != (s.nodes[j].disk.Decision == nil)
		}
	}
}
