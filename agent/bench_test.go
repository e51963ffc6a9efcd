package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/kube/kubetest"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/identity"
)

func TestMain(m *testing.M) {
	// containerd's client gives up a dial by its own timeout of 2 s only, also after Close.
	const dial = "github.com/containerd/containerd/v2/pkg/dialer.timeoutDialer"
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(dial), goleak.IgnoreAnyFunction(dial+".func1"))
}

// testUID is the cluster of the machines on the bench.
const testUID = "00112233445566778899aabbccddeeff"

// journal keeps what was logged.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) lines() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Split(strings.TrimSpace(j.buf.String()), "\n")
}

// bench is an agent whose loop is turned by hand. Its machine is the only
// member of its mesh, and the state says that it has been running a cluster.
//
//	test ──turn()──> agent ──> daemon (overlay)   fakeRuntime (containerd, k3s)
type bench struct {
	*agent
	mesh    *mesh
	machine *machine
	journal *journal
}

// newBench makes a machine in everyday life; edit changes its configuration.
func newBench(t *testing.T, r store.Role, edit func(*config.Config)) *bench {
	t.Helper()
	m, machines := newMesh(t, 1, 1)
	b := &bench{mesh: m, machine: machines[0], journal: &journal{}}
	prepare(t, b.machine, r)
	b.restart(t, edit)
	return b
}

// prepare leaves on the machine what a member of testUID has on its disk.
func prepare(t *testing.T, m *machine, r store.Role) {
	t.Helper()
	m.runtime.image = true
	self := m.daemon.mesh.nodes[m.daemon.index].ID
	files := m.runtime.files
	st := store.State{NetworkID: "home", Phase: store.Running, Role: r, ClusterUID: testUID, Epoch: 1,
		Servers: []identity.ID{self}, PodCIDR: netip.MustParsePrefix("10.42.0.0/24")}
	err := files.WriteMarker(k3s.Marker{UID: testUID, Epoch: 1, Role: r, Servers: st.Servers})
	if r == store.Server {
		err = errors.Join(err, files.EnsureTokens(), m.runtime.becomeServer())
	} else {
		err = errors.Join(err, files.SaveJoin(joinOf(fakeCA(), netip.MustParseAddr("127.0.0.2"))))
	}
	if err != nil {
		t.Fatal(err)
	}
	saveState(t, m, st)
}

func saveState(t *testing.T, m *machine, st store.State) {
	t.Helper()
	s, err := store.Open(filepath.Join(m.dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Load()
	if err = errors.Join(err, s.Save(st), s.Close()); err != nil {
		t.Fatal(err)
	}
}

// restart kills the agent, if there is one, and starts another on the same machine.
func (b *bench) restart(t *testing.T, edit func(*config.Config)) {
	t.Helper()
	if b.agent != nil {
		if err := b.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cfg := b.machine.config()
	if edit != nil {
		edit(&cfg)
	}
	b.agent = b.machine.agent(t, cfg)
	b.log = slog.New(slog.NewTextHandler(b.journal, nil))
	b.report.log = b.log
	ctx, cancel := context.WithCancel(context.Background())
	b.life, b.voting.base = ctx, ctx
	a := b.agent
	t.Cleanup(func() {
		a.voting.stop()
		cancel()
		a.puller.Wait()
		a.peers.CloseIdle()
		a.overlay.CloseIdle()
		_ = a.store.Close() // closed already when the agent was replaced
	})
}

// look takes over what the overlay says now, as world.watch does.
func (b *bench) look(t *testing.T) {
	t.Helper()
	s, _, err := b.world.ask(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	b.world.set(s)
}

// turns turns the loop n times, each with a fresh look at the overlay.
func (b *bench) turns(t *testing.T, n int) {
	t.Helper()
	for range n {
		b.look(t)
		b.turn(t.Context())
	}
}

// waiting is what everybody is told.
func (b *bench) waiting() string { return b.report.last.Load().Cluster.Waiting }

// condition is how a condition is told, "" when it does not hold.
func (b *bench) condition(code string) string {
	for _, c := range b.report.last.Load().Conditions {
		if c.Code == code {
			return fmt.Sprintf("%s: %s (%s)", c.Severity, c.Text, c.Hint)
		}
	}
	return ""
}

// notes are the annotations that the overlay carries.
func (b *bench) notes() map[string]string {
	b.mesh.mu.Lock()
	defer b.mesh.mu.Unlock()
	return b.mesh.nodes[0].Annotations
}

func (b *bench) starts() int {
	b.machine.runtime.mu.Lock()
	defer b.machine.runtime.mu.Unlock()
	return b.machine.runtime.starts
}

// asks is how often containerd was asked for anything.
func (b *bench) asks() int {
	b.machine.runtime.mu.Lock()
	defer b.machine.runtime.mu.Unlock()
	return b.machine.runtime.asked
}

// break changes what containerd answers.
func (b *bench) disturb(f func(*fakeRuntime)) {
	b.machine.runtime.mu.Lock()
	defer b.machine.runtime.mu.Unlock()
	f(b.machine.runtime)
}

func mustRemove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func mustContain(t *testing.T, what, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%s: %q does not say %q", what, got, w)
		}
	}
}

// fakeProbe is a k3s that is always well.
type fakeProbe struct {
	cidr netip.Prefix
	kube *kubetest.Cluster // nil: its API does not answer
}

func (p fakeProbe) Do(ctx context.Context, method, path string, body []byte) (int, []byte, error) {
	if p.kube == nil {
		return 0, nil, k3s.ErrNotReady
	}
	return p.kube.Do(ctx, method, path, body)
}

func (fakeProbe) Ready(context.Context) error { return nil }

func (p fakeProbe) Node(context.Context, string) (k3s.Node, error) {
	return k3s.Node{PodCIDR: p.cidr, Ready: true, Version: "v1.35.8+k3s1"}, nil
}

// sick is a k3s that runs and answers nothing.
type sick struct{ fakeProbe }

func (sick) Ready(context.Context) error { return k3s.ErrNotReady }

var _ prober = sick{}

// settled turns until k3s runs and everything is told.
func (b *bench) settled(t *testing.T) {
	t.Helper()
	b.turns(t, 3)
	// A worker of the bench has no server in sight, and works all the same.
	waiting := strings.Contains(b.waiting(), "server to be reachable")
	if b.starts() != 1 || b.notes()["ready"] != "true" || b.notes()["kubernetes"] != "v1.35.8+k3s1" || waiting != (b.notes()["role"] == "worker") || !waiting && b.waiting() != "" {
		t.Fatalf("not settled: %d starts, %v, %q", b.starts(), b.notes(), b.waiting())
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}
