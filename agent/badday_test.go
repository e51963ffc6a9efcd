package agent

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
)

// What an agent does on a machine that behaves badly. Each test is one bad day.

func TestContainerdGoesAwayAndComesBack(t *testing.T) {
	b := newBench(t, store.Server, nil)
	b.settled(t)
	b.disturb(func(f *fakeRuntime) { f.down = k3s.ErrNoRuntime })
	b.turns(t, 3)
	mustContain(t, "while it is away", b.waiting(), "waiting for containerd")
	mustContain(t, "while it is away", b.condition(health.CodeWaiting), "systemctl status containerd")
	b.disturb(func(f *fakeRuntime) { f.down = nil })
	b.turns(t, 2)
	if b.starts() != 1 || b.machine.runtime.stops != 0 {
		t.Errorf("k3s was touched: %d starts, %d stops", b.starts(), b.machine.runtime.stops)
	}
	if b.notes()["ready"] != "true" {
		t.Errorf("not ready again: %v", b.notes())
	}
}

func TestContainerdHangs(t *testing.T) {
	b := newBench(t, store.Server, nil)
	b.settled(t)
	b.patience = time.Millisecond
	b.disturb(func(f *fakeRuntime) { f.hang = true })
	b.look(t)
	begin := time.Now()
	b.turn(t.Context())
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("one turn took %s", d)
	}
	mustContain(t, "while it hangs", b.waiting(), "waiting for containerd")
	if b.notes()["ready"] == "true" {
		t.Error("says that it is ready without knowing")
	}
}

// k3s with a flag that it does not know ends at once, whenever it is started.
func TestK3sEndsAtOnce(t *testing.T) {
	b := newBench(t, store.Server, func(c *config.Config) { c.K3s.Args = []string{"--no-such-flag"} })
	b.prober = func(k3s.Probe) prober { return sick{} }
	b.turns(t, 1)
	for range 2 { // the second end is answered at once, the third is not
		b.machine.runtime.crash()
		b.turns(t, 1)
	}
	if n := b.starts(); n != 2 {
		t.Fatalf("%d starts, want 2 and then a pause", n)
	}
	logged := len(b.journal.lines())
	b.turns(t, 5)
	mustContain(t, "status", b.waiting(), "k3s ended with code 137", "starting it again in")
	mustContain(t, "condition", b.condition(health.CodeK3sFailing), "error: k3s ended with code 137 (see ", "k3s.log")
	if n := len(b.journal.lines()); n != logged {
		t.Errorf("the journal grows with every turn:\n%s", strings.Join(b.journal.lines()[logged:], "\n"))
	}
	b.restarts.Next = time.Now()
	b.turns(t, 1)
	if n := b.starts(); n != 3 {
		t.Errorf("%d starts after the pause, want 3", n)
	}
	b.turns(t, 1)
	mustContain(t, "while it runs again", b.condition(health.CodeK3sFailing), "does not stay up: 2 ends in a row")
}

func TestK3sEndsAfterAnHour(t *testing.T) {
	b := newBench(t, store.Server, nil)
	b.settled(t)
	b.machine.runtime.crash()
	b.turns(t, 1)
	if n := b.starts(); n != 2 {
		t.Errorf("%d starts: one end after a long time is no reason to pause", n)
	}
	if c := b.condition(health.CodeK3sFailing); c != "" {
		t.Errorf("one end is told as %s", c)
	}
}

// The runtime refuses the container: the disk is full, say.
func TestStartIsRefused(t *testing.T) {
	b := newBench(t, store.Server, nil)
	b.disturb(func(f *fakeRuntime) { f.refuse = errors.New("no space left on device") })
	b.turns(t, 1)
	mustContain(t, "status", b.waiting(), "start k3s: no space left on device")
	b.disturb(func(f *fakeRuntime) { f.refuse = nil })
	b.turns(t, 1)
	if b.starts() != 0 {
		t.Error("tried again without a pause")
	}
	mustContain(t, "status", b.waiting(), "no space left on device", "starting it again in")
	b.restarts.Next = time.Now()
	b.turns(t, 2)
	if b.starts() != 1 || b.restarts.Cause != nil {
		t.Errorf("%d starts after the pause, cause %v", b.starts(), b.restarts.Cause)
	}
}

func TestStateCannotBeSaved(t *testing.T) {
	b := newBench(t, store.Server, nil)
	saved := b.store.State()
	saved.Phase, saved.PodCIDR = store.Starting, netip.Prefix{}
	if err := b.store.Update(func(s *store.State) error { *s = saved; return nil }); err != nil {
		t.Fatal(err)
	}
	mustRemove(t, filepath.Join(b.machine.dir, "state")) // as good as a full disk: nothing can be created
	b.turns(t, 4)
	mustContain(t, "condition", b.condition(health.CodeStateUnusable), "error: save state: ")
	if b.starts() != 1 || b.machine.runtime.stops != 0 {
		t.Errorf("k3s: %d starts, %d stops, want it to go on", b.starts(), b.machine.runtime.stops)
	}
	if got := b.notes()["phase"]; got != "running" && b.store.State().Phase != store.Starting {
		t.Errorf("phase %q is told and %q is remembered", got, b.store.State().Phase)
	}
}

func TestOverlayDaemonRestarts(t *testing.T) {
	b := newBench(t, store.Server, nil)
	b.settled(t)
	gone := b.world.get()
	gone.up = false
	b.world.set(gone)
	b.turn(t.Context())
	mustContain(t, "while it is away", b.waiting(), "waiting for the overlay network")
	mustContain(t, "while it is away", b.condition(health.CodeOverlayDown), "systemctl status kairos-overlay")
	// It comes back and has forgotten what it was told.
	b.mesh.edit(func() { b.mesh.nodes[0].Annotations, b.mesh.nodes[0].Prefixes = nil, nil })
	b.turns(t, 3)
	if b.notes()["ready"] != "true" || len(b.mesh.nodes[0].Prefixes) != 1 {
		t.Errorf("not told again: %v, %v", b.notes(), b.mesh.nodes[0].Prefixes)
	}
	if b.starts() != 1 || b.machine.runtime.stops != 0 {
		t.Errorf("k3s was touched: %d starts, %d stops", b.starts(), b.machine.runtime.stops)
	}
}

// Whatever is configured anew takes k3s down once, and only once.
func TestConfigurationChanges(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*config.Config)
		want string // in the new specification
	}{
		{"arguments", func(c *config.Config) { c.K3s.Args = []string{"--disable=traefik"} }, "--disable=traefik"},
		{"environment", func(c *config.Config) { c.K3s.Env = map[string]config.Secret{"HTTP_PROXY": "http://p"} }, "HTTP_PROXY:http://p"},
		{"image", func(c *config.Config) { c.K3s.Image = "registry.example/k3s:v9" }, "registry.example/k3s:v9"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, store.Server, nil)
			b.settled(t)
			b.restart(t, nil)
			b.turns(t, 2)
			if b.starts() != 1 {
				t.Fatal("a new agent restarted k3s without a reason")
			}
			b.restart(t, tc.edit)
			b.turns(t, 3)
			if b.starts() != 2 {
				t.Errorf("%d starts, want 2", b.starts())
			}
			mustContain(t, "specification", strings.ReplaceAll(specText(b), "(redacted)", ""), tc.want)
		})
	}
}

func specText(b *bench) string {
	b.machine.runtime.mu.Lock()
	defer b.machine.runtime.mu.Unlock()
	s := b.machine.runtime.spec
	out := s.Image + " " + strings.Join(s.Args, " ")
	for k, v := range s.Env {
		out += " " + k + ":" + v
	}
	return out
}

// A new image that cannot be had leaves the old k3s running, and says so.
func TestNewImageIsNotThere(t *testing.T) {
	b := newBench(t, store.Server, nil)
	b.settled(t)
	b.disturb(func(f *fakeRuntime) { f.image = false })
	b.restart(t, func(c *config.Config) { c.K3s.Image = "oci:" + filepath.Join(b.machine.dir, "none") })
	b.turns(t, 3)
	if b.starts() != 1 || b.machine.runtime.stops != 0 {
		t.Errorf("k3s was touched: %d starts, %d stops", b.starts(), b.machine.runtime.stops)
	}
	mustContain(t, "condition", b.condition(health.CodeImage), "warning: k3s goes on as it was", "the image is not there", "check k3s.image")
}

// The medium with the image was taken away after its content was brought in.
func TestLayoutIsGoneButImported(t *testing.T) {
	b := newBench(t, store.Server, func(c *config.Config) { c.K3s.Image = "oci:/nowhere/k3s" })
	b.turns(t, 3)
	if b.starts() != 1 {
		t.Errorf("%d starts: %s", b.starts(), b.waiting())
	}
}

// overlay.cidr was changed: all addresses are others, the server's too.
func TestAddressChanges(t *testing.T) {
	b := newBench(t, store.Server, nil)
	b.settled(t)
	now := netip.MustParseAddr("127.0.0.99")
	b.mesh.edit(func() { b.mesh.nodes[0].Addresses[0] = now })
	b.turns(t, 3)
	if b.starts() != 2 {
		t.Errorf("%d starts, want a restart on the new address", b.starts())
	}
	mustContain(t, "specification", specText(b), "--node-ip=127.0.0.99", "--advertise-address=127.0.0.99")
	if got := b.notes()["server"]; got != "127.0.0.99:6443" {
		t.Errorf("the server is told to be at %q", got)
	}
}

// Somebody reloads the machine's firewall and flushes our table with it.
func TestFirewallIsReloaded(t *testing.T) {
	b := newBench(t, store.Server, nil)
	loads, fail := 0, error(nil)
	b.opt.PodNet.NFT = func(context.Context, string) error { loads++; return fail }
	b.settled(t)
	b.turns(t, 3)
	if loads != 1 {
		t.Fatalf("loaded %d times", loads)
	}
	b.applied.at = b.applied.at.Add(-networkRefresh)
	b.turns(t, 2)
	if loads != 2 {
		t.Errorf("loaded %d times a minute later, want 2", loads)
	}
	fail = errors.New("the kernel says no")
	b.applied.at = b.applied.at.Add(-networkRefresh)
	b.turns(t, 2)
	mustContain(t, "condition", b.condition(health.CodePodNetwork), "error: load the nftables rules: the kernel says no")
	fail = nil
	b.turns(t, 1)
	if c := b.condition(health.CodePodNetwork); c != "" {
		t.Errorf("mended, and still told: %s", c)
	}
}

// Kubernetes gives a machine another pod range, after its Node object was deleted, say. Pods
// with addresses of the old one are started anew, others are not touched (fault T2).
func TestPodRangeChanges(t *testing.T) {
	b := newBench(t, store.Worker, nil)
	b.settled(t)
	reservations := filepath.Join(b.machine.dir, "reservations")
	err := os.Mkdir(reservations, 0o700)
	for addr, id := range map[string]string{"10.42.0.5": "old", "10.42.7.5": "new"} {
		err = errors.Join(err, os.WriteFile(filepath.Join(reservations, addr), []byte(id+"\r\neth0"), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	b.prober = func(k3s.Probe) prober { return fakeProbe{cidr: netip.MustParsePrefix("10.42.7.0/24")} }
	b.turns(t, 3)
	if got := b.machine.runtime.ended; !slices.Equal(got, []string{"old"}) {
		t.Errorf("ended %q", got)
	}
	mustContain(t, "condition", b.condition(health.CodePodNetwork), "warning: pods are started anew, ", "before: 1")
	if got := b.mesh.nodes[0].Prefixes; !slices.Equal(got, []netip.Prefix{netip.MustParsePrefix("10.42.7.0/24")}) {
		t.Errorf("announces %v", got)
	}
	mustRemove(t, filepath.Join(reservations, "10.42.0.5")) // as the plugin does for a pod that ended
	b.applied.at = b.applied.at.Add(-networkRefresh)
	b.turns(t, 2)
	if c := b.condition(health.CodePodNetwork); c != "" {
		t.Errorf("started anew, and still told: %s", c)
	}
}

func TestTwoAgentsAtOnce(t *testing.T) {
	b := newBench(t, store.Server, nil)
	cfg := b.machine.config()
	other := &agent{cfg: cfg, log: b.log, overlay: b.overlay, runtime: b.machine.runtime, opt: b.opt}
	if err := other.assemble(b.machine.runtime); !errors.Is(err, store.ErrLocked) {
		t.Errorf("got %v, want %v", err, store.ErrLocked)
	}
	if b.starts() != 0 {
		t.Error("the second one acted")
	}
}

// A killed agent leaves each step done or not done; the next one goes on.
func TestKilledBetweenSaveAndStart(t *testing.T) {
	b := newBench(t, store.Server, nil)
	st := b.store.State()
	st.Phase, st.PodCIDR = store.Starting, netip.Prefix{}
	if err := b.store.Update(func(s *store.State) error { *s = st; return nil }); err != nil {
		t.Fatal(err)
	}
	mustRemove(t, filepath.Join(b.machine.runtime.files.Dir, "server")) // k3s never came up
	mustRemove(t, b.machine.runtime.files.ServerToken())
	b.restart(t, nil)
	b.turns(t, 3)
	if b.starts() != 1 || b.store.State().Phase != store.Running {
		t.Errorf("%d starts, phase %q: %s", b.starts(), b.store.State().Phase, b.waiting())
	}
	if err := b.opt.Files.HasTokens(); err != nil {
		t.Error(err)
	}
}

func TestServerWithoutItsTokens(t *testing.T) {
	b := newBench(t, store.Server, nil)
	mustRemove(t, b.machine.runtime.files.ServerToken())
	b.turns(t, 2)
	if b.starts() != 0 {
		t.Error("started: k3s would have made other tokens")
	}
	mustContain(t, "condition", b.condition(health.CodeNeedsOperator), "its tokens are not: restore ", "server-token")
}

func TestMarkerCannotBeRead(t *testing.T) {
	b := newBench(t, store.Server, nil)
	b.settled(t)
	marker := filepath.Join(b.machine.runtime.files.Dir, "kairos", "cluster.json")
	mustRemove(t, marker)
	mkdir(t, marker)
	b.turns(t, 2)
	mustContain(t, "condition", b.condition(health.CodeNeedsOperator), "cluster.json")
	if b.machine.runtime.stops != 0 {
		t.Error("k3s was stopped")
	}
}

// A clock that jumps must not make the agent look dead, or alive.
func TestAliveCountsTurnsNotTheClock(t *testing.T) {
	b := newBench(t, store.Worker, nil)
	b.beat()
	if err := b.alive(); err != nil {
		t.Errorf("right after a turn: %v", err)
	}
	b.started = b.started.Add(-deadAfter - time.Second) // as much time has passed since the last turn
	if err := b.alive(); err == nil {
		t.Error("a loop that hangs goes unnoticed")
	}
	b.beat()
	if err := b.alive(); err != nil {
		t.Errorf("turning again: %v", err)
	}
}

func TestDisabledStopsAndWithdraws(t *testing.T) {
	for _, r := range []store.Role{store.Server, store.Worker} {
		t.Run(string(r), func(t *testing.T) {
			b := newBench(t, r, nil)
			b.settled(t)
			b.restart(t, func(c *config.Config) { c.Cluster.Enabled = false })
			b.turns(t, 3)
			if n := b.machine.runtime.stops; n != 1 {
				t.Errorf("%d stops, want 1", n)
			}
			if got := b.notes(); len(got) != 2 || got["phase"] != "disabled" || got["role.wanted"] != "worker" {
				t.Errorf("still tells %v", got)
			}
			if p := b.mesh.nodes[0].Prefixes; len(p) != 0 {
				t.Errorf("still announces %v", p)
			}
			mustContain(t, "line", b.report.line(), "cluster.enabled is false")
			before := b.mesh.revision
			b.turns(t, 3)
			if b.mesh.revision != before {
				t.Error("tells the overlay again and again")
			}
			// Enabled again, it is what it was.
			b.restart(t, nil)
			b.turns(t, 3)
			if b.starts() != 2 || b.notes()["cluster.uid"] != testUID || b.notes()["role"] != string(r) {
				t.Errorf("%d starts, %v", b.starts(), b.notes())
			}
		})
	}
}

// A machine that is on the network only need not have containerd at all.
func TestDisabledWithoutContainerd(t *testing.T) {
	m, machines := newMesh(t, 1, 1)
	machines[0].runtime.down = k3s.ErrNoRuntime
	cfg := machines[0].config()
	cfg.Cluster.Enabled = false
	stop := machines[0].startAs(t, cfg)
	m.wait(t, "the word that there is no cluster", func(n []api.Node) bool { return n[0].Annotations["phase"] == "disabled" })
	stop()
	if w := m.nodes[0].Annotations["waiting"]; w != "" {
		t.Errorf("waits for %q", w)
	}
}

func TestDisabledAndContainerdIsLate(t *testing.T) {
	b := newBench(t, store.Worker, func(c *config.Config) { c.Cluster.Enabled = false })
	b.disturb(func(f *fakeRuntime) { f.status, f.down = k3s.Status{}, k3s.ErrNoRuntime })
	b.turns(t, 2)
	mustContain(t, "status", b.waiting(), "waiting for containerd")
	b.disturb(func(f *fakeRuntime) {
		f.status, f.down = k3s.Status{Exists: true, Running: true, Role: k3s.Agent, UID: testUID}, nil
	})
	b.turns(t, 2)
	if b.machine.runtime.stops != 1 || b.waiting() != "" {
		t.Errorf("%d stops, %q", b.machine.runtime.stops, b.waiting())
	}
}

// The watch on k3s' process wakes the loop, and is set anew for each process.
func TestWatchExit(t *testing.T) {
	b := newBench(t, store.Server, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.turns(t, 2)
	b.watchExit(ctx)
	first := b.exit.done
	if first == nil {
		t.Fatal("nothing is watched")
	}
	b.watchExit(ctx)
	if b.exit.done != first {
		t.Error("watched twice")
	}
	b.machine.runtime.crash()
	<-first
	b.turns(t, 1)
	b.watchExit(ctx)
	b.turns(t, 1)
	b.watchExit(ctx)
	if b.exit.done == nil || b.exit.done == first || b.exit.pid != 2 {
		t.Errorf("the new process is not watched: %+v", b.exit)
	}
}
