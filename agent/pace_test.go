package agent

import (
	"encoding/json"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/store"
)

// minute turns the loop as often as it wants to be turned in one minute in which
// nothing happens, and returns how often that was and how often containerd was
// asked. A turn that wakes the loop itself counts at once.
func (b *bench) minute(t *testing.T) (turns, asks int) {
	t.Helper()
	before := b.asks()
	for left := time.Minute; left > 0; turns++ {
		if turns > 1000 {
			t.Fatalf("%d turns, and %s of the minute are left", turns, left)
		}
		news := b.news()
		pause := b.turn(t.Context())
		if !closed(news[:]) {
			left -= pause
			b.restarts.Next = b.restarts.Next.Add(-pause)
		}
	}
	return turns, b.asks() - before
}

func closed(news []<-chan struct{}) bool {
	for _, c := range news {
		select {
		case <-c:
			return true
		default:
		}
	}
	return false
}

// fullDisk makes the state impossible to save, while what is to be saved stays so.
func fullDisk(t *testing.T, b *bench) {
	t.Helper()
	err := b.store.Update(func(s *store.State) error {
		s.Phase, s.PodCIDR = store.Starting, netip.Prefix{}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	mustRemove(t, filepath.Join(b.machine.dir, "state"))
}

// spoilVotes replaces what the machine knows of its votes, in every phase.
func spoilVotes(votes string, phase store.Phase) func(*testing.T, *bench) {
	return func(t *testing.T, b *bench) {
		t.Helper()
		st := b.store.State()
		st.Genesis, st.Phase = json.RawMessage(votes), phase
		if !phase.AtLeast(store.Decided) {
			st.Role, st.ClusterUID, st.Servers = "", "", nil
			mustRemove(t, b.machine.runtime.files.Dir)
		}
		if !phase.AtLeast(store.Starting) {
			b.disturb(func(f *fakeRuntime) { f.status = k3s.Status{} })
		}
		if err := b.store.Save(st); err != nil {
			t.Fatal(err)
		}
		b.restart(t, nil)
	}
}

// What a state that lasts costs (fault A1): a changed network_token once turned the
// loop 27,000 times a second, and containerd was asked each time.
func TestTurnsPerMinute(t *testing.T) {
	const otherToken = `{"network":"0011223344556677/home"}`
	for _, tc := range []struct {
		name  string
		with  func(*testing.T, *bench)
		turns int    // at most
		code  string // of the condition that tells a person
		says  []string
	}{
		{"all is well", func(*testing.T, *bench) {}, 8, "", nil},
		{"votes of another token, running", spoilVotes(otherToken, store.Running), 8, health.CodeNetworkChanged, []string{"warning", "another network token", "set network_token"}},
		{"votes of another token, voted only", spoilVotes(otherToken, store.Promised), 8, health.CodeNetworkChanged, []string{"error", "another network token", "set network_token"}},
		{"votes damaged, running", spoilVotes(`{"votes":7}`, store.Running), 8, health.CodeStateUnusable, []string{"warning", "votes in ", "damaged", "from a backup"}},
		{"votes damaged, voted only", spoilVotes(`{"votes":7}`, store.Promised), 8, health.CodeStateUnusable, []string{"error", "damaged", "from a backup"}},
		{"votes damaged, decided", spoilVotes(`{"votes":7}`, store.Decided), 8, health.CodeStateUnusable, []string{"error", "damaged", "from a backup"}},
		{"containerd is down", func(_ *testing.T, b *bench) {
			b.disturb(func(f *fakeRuntime) { f.down = k3s.ErrNoRuntime })
		}, 8, health.CodeWaiting, []string{"systemctl status containerd"}},
		{"containerd is down before anything ran", func(t *testing.T, b *bench) {
			spoilVotes("", store.Idle)(t, b)
			b.disturb(func(f *fakeRuntime) { f.down = k3s.ErrNoRuntime })
		}, 8, health.CodeWaiting, []string{"systemctl status containerd"}},
		{"the disk is full", fullDisk, 12, health.CodeStateUnusable, []string{"save state", "free space"}},
		{"k3s cannot be started", func(_ *testing.T, b *bench) {
			b.disturb(func(f *fakeRuntime) { f.status, f.refuse = k3s.Status{}, errors.New("no space left on device") })
		}, 12, health.CodeK3sFailing, []string{"no space left"}},
		{"the overlay is away", func(_ *testing.T, b *bench) {
			gone := b.world.get()
			gone.up = false
			b.world.set(gone)
		}, 8, health.CodeOverlayDown, []string{"systemctl status kairos-overlay"}},
		{"k3s does not answer", func(_ *testing.T, b *bench) {
			b.prober = func(k3s.Probe) prober { return sick{} }
			b.pace.settling = maxEager
		}, 8, health.CodeWaiting, []string{"Kubernetes API"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, store.Server, nil)
			b.settled(t)
			tc.with(t, b)
			if tc.code != health.CodeOverlayDown {
				b.look(t)
			}
			turns, asks := b.minute(t)
			t.Logf("RESULT %d turns, containerd asked %d times", turns, asks)
			if turns > tc.turns || asks > 4*tc.turns {
				t.Errorf("%d turns and %d questions to containerd in a minute without news, want %d turns at most", turns, asks, tc.turns)
			}
			if tc.code != "" {
				mustContain(t, "condition", b.condition(tc.code), tc.says...)
				if strings.HasSuffix(b.condition(tc.code), "()") {
					t.Errorf("no next step: %s", b.condition(tc.code))
				}
			}
		})
	}
}

// The same word again is no news, from whomever it comes.
func TestNewsOnChangeOnly(t *testing.T) {
	b := newBench(t, store.Server, nil)
	b.turns(t, 1)
	b.look(t)
	news := b.news()
	b.look(t)
	b.voting.set(b.voting.driver, nil)
	if closed(news[:]) {
		t.Error("woken by what was known")
	}
	b.voting.set(nil, errors.New("w")) // until now the driver itself told of news
	for _, tc := range []struct {
		name string
		do   func()
	}{
		{"the overlay goes away", func() { s := b.world.get(); s.up = false; b.world.set(s) }},
		{"the agreement has another problem", func() { b.voting.set(nil, errors.New("x")) }},
		{"and yet another", func() { b.voting.set(nil, errors.New("y")) }},
	} {
		news := b.news()
		tc.do()
		if !closed(news[:]) {
			t.Errorf("%s: not woken", tc.name)
		}
	}
}
