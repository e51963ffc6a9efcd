package mesh

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/kairos-io/kairos/overlay/admission"
	"github.com/kairos-io/kairos/overlay/underlay"
)

// calm is for tests that count failures: a busy machine makes none of its own, and there
// is time for another try.
var calm = Timing{Dial: patience / 4, Admission: patience / 4}

// hubAt listens at n addresses, as a machine with several cards does.
func hubAt(t *testing.T, cfg Config, n int) *Mesh {
	t.Helper()
	for i := range n {
		cfg.Listen = append(cfg.Listen, netip.MustParseAddrPort(fmt.Sprintf("127.0.0.%d:0", i+1)))
	}
	return start(t, cfg)
}

// everybody waits until all are connected to the hub and no dial is under way, and checks
// that nobody paid for it.
func everybody(t *testing.T, hub *Mesh, members []*Mesh) {
	t.Helper()
	until(t, "all are connected", func() bool {
		return !slices.ContainsFunc(members, func(m *Mesh) bool { return !hub.Connected(m.ID()) || !m.Connected(hub.ID()) })
	})
	s := hub.Stats().Admission
	t.Logf("RESULT %d members came in: %+v", len(members), s)
	if s.RefusedProof+s.RefusedTimeout+s.RefusedLimit+s.RefusedByPeer+s.RefusedTerms != 0 {
		t.Errorf("members with the right token count as %+v", s)
	}
}

// A node dials every address of a hub and keeps one connection. The others were counted
// as proofs that failed.
func TestLostRacesAreNoFailures(t *testing.T) {
	keys := testKeys(t)
	hub := hubAt(t, Config{Keys: keys, Timing: calm}, 8)
	var members []*Mesh
	for range 14 {
		m := start(t, Config{Keys: keys, Timing: calm})
		m.Learn(hub.ID(), hub.Underlay())
		members = append(members, m)
	}
	everybody(t, hub, members)
}

// A site of 48 machines that start at once behind one address fits through the door.
func TestSiteBehindOneAddress(t *testing.T) {
	keys := testKeys(t)
	hub := hubAt(t, Config{Keys: keys, Timing: calm}, 3)
	members := make([]*Mesh, 48)
	for i := range members {
		members[i] = start(t, Config{Keys: keys, Timing: calm})
	}
	var at sync.WaitGroup
	for _, m := range members {
		at.Go(func() { m.Learn(hub.ID(), hub.Underlay()) })
	}
	at.Wait()
	everybody(t, hub, members)
}

// A machine with another token does not keep those out that share its address.
func TestAnotherTokenBehindOneAddress(t *testing.T) {
	keys := testKeys(t)
	hub := hubAt(t, Config{Keys: keys, Timing: calm}, 1)
	first := start(t, Config{Keys: keys, Timing: calm})
	first.Learn(hub.ID(), hub.Underlay())
	everybody(t, hub, []*Mesh{first})

	stranger := start(t, Config{Keys: testKeys(t)})
	until(t, "the strangers' budget is spent", func() bool {
		if comeIn(t, stranger, hub) == nil {
			t.Fatal("admitted")
		}
		return hub.Stats().Admission.RefusedLimit > 0
	})
	first.Disconnect(hub.ID())
	until(t, "the member is back", func() bool { return hub.Connected(first.ID()) && first.Connected(hub.ID()) })
}

// comeIn tries to be admitted over TCP, and reports whether that worked.
func comeIn(t testing.TB, from, to *Mesh) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := from.under.Dial(ctx, underlay.TCP, to.under.Bound()[0], to.ID())
	if err == nil {
		_, err = from.gate.Admit(ctx, c, admission.Dialled)
	}
	return err
}
