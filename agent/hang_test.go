package agent

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// later turns the loop as often as it takes for d to pass, in steps of half a minute.
func (b *bench) later(t *testing.T, d time.Duration) {
	t.Helper()
	for ; d > 0; d -= 30 * time.Second {
		b.started = b.started.Add(-30 * time.Second)
		b.turns(t, 1)
	}
}

// addServer adds the server of the bench's cluster, which its worker joined.
func (b *bench) addServer(t *testing.T) {
	t.Helper()
	id := identity.ID{9}
	b.mesh.edit(func() {
		b.mesh.nodes = append(b.mesh.nodes, api.Node{ID: id, Name: "server-" + id.Short(), Kind: api.KindNode, NetworkID: "home", Annotations: map[string]string{
			api.NoteClusterUID: testUID, api.NoteServer: "127.0.0.2:6443", api.NoteCA: joinOf(fakeCA(), netip.Addr{}).CA.Hash()}})
	})
	if err := b.store.Update(func(s *store.State) error { s.Servers = []identity.ID{id}; return nil }); err != nil {
		t.Fatal(err)
	}
}

// A k3s whose process lives and whose API is silent is restarted, ever more seldom, and
// told by name (fault A10). The machine's pods keep their network.
func TestHungK3sIsRestarted(t *testing.T) {
	for _, r := range []store.Role{store.Server, store.Worker} {
		t.Run(string(r), func(t *testing.T) {
			b := newBench(t, r, nil)
			b.settled(t)
			if r == store.Worker {
				b.addServer(t)
			}
			well := b.prober
			b.prober = func(k3s.Probe) prober { return sick{} }
			b.later(t, 4*time.Minute)
			if b.starts() != 1 || b.condition(health.CodeK3sFailing) != "" {
				t.Fatalf("too early: %d starts, %s", b.starts(), b.condition(health.CodeK3sFailing))
			}
			b.later(t, 3*time.Minute)
			if b.starts() != 2 || b.machine.runtime.stops != 1 {
				t.Fatalf("%d starts, %d stops, want one restart: %s", b.starts(), b.machine.runtime.stops, b.waiting())
			}
			mustContain(t, "condition", b.condition(health.CodeK3sFailing), "warning: k3s did not answer and was restarted", "k3s.log")
			b.later(t, 40*time.Minute)
			if b.starts() != 3 {
				t.Errorf("%d starts within an hour, want 3", b.starts())
			}
			mustContain(t, "condition", b.condition(health.CodeK3sFailing), "error: k3s runs and does not answer, although it was restarted 2 times")
			if p := b.mesh.nodes[0].Prefixes; len(p) != 1 {
				t.Errorf("the pods' range is %v", p)
			}
			b.prober = well
			b.later(t, 10*time.Minute)
			mustContain(t, "condition", b.condition(health.CodeK3sFailing), "warning", "answers again")
			b.later(t, time.Hour)
			if c := b.condition(health.CodeK3sFailing); c != "" || b.starts() != 3 || b.notes()["ready"] != "true" {
				t.Errorf("in the end: %q, %d starts, %v", c, b.starts(), b.notes())
			}
		})
	}
}

// A k3s that cannot be stopped is told, and no restart is counted.
func TestHungK3sCannotBeStopped(t *testing.T) {
	b := newBench(t, store.Server, nil)
	b.settled(t)
	b.prober = func(k3s.Probe) prober { return sick{} }
	b.disturb(func(f *fakeRuntime) { f.stuck = errors.New("the shim does not answer") })
	b.later(t, 7*time.Minute)
	mustContain(t, "condition", b.condition(health.CodeK3sFailing), "error: stop k3s, to start it anew: the shim does not answer")
	if b.starts() != 1 {
		t.Errorf("%d starts", b.starts())
	}
	b.disturb(func(f *fakeRuntime) { f.stuck = nil })
	b.later(t, time.Minute)
	if b.starts() != 2 {
		t.Errorf("%d starts once it can be stopped", b.starts())
	}
}
