package agent

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/agent/genesis"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// awaitWorld returns when cond holds of the snapshot.
func awaitWorld(t *testing.T, w *world, what string, cond func(snapshot) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for {
		changed := w.Changed()
		if cond(w.get()) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s did not happen: %+v", what, w.get())
		}
	}
}

// The overlay's daemon dies and comes back; what was known stays meanwhile.
func TestWorldOutlivesTheOverlay(t *testing.T) {
	m, machines := newMesh(t, 2, 2)
	mc := machines[0]
	client := api.NewClient(filepath.Join(mc.dir, "gateway.sock"))
	defer client.CloseIdle()
	w := newWorld(client, "home", discard)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.watch(ctx) }()

	stop := serveAt(t, filepath.Join(mc.dir, "gateway.sock"), mc.daemon.handler())
	awaitWorld(t, w, "a first answer", func(s snapshot) bool { return s.up && len(s.nodes) == 2 })
	m.edit(func() { m.nodes[1].Annotations = map[string]string{"phase": "running"} })
	awaitWorld(t, w, "news of another member", func(s snapshot) bool { return s.nodes[1].Annotations["phase"] == "running" })
	stop()
	awaitWorld(t, w, "word that it is away", func(s snapshot) bool { return !s.up })
	if s := w.get(); len(s.nodes) != 2 || s.address() != mc.daemon.addr {
		t.Errorf("forgot %+v", s)
	}
	stop = serveAt(t, filepath.Join(mc.dir, "gateway.sock"), mc.daemon.handler())
	awaitWorld(t, w, "its return", func(s snapshot) bool { return s.up })
	stop()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// serveAt is a daemon that can be stopped.
func serveAt(t *testing.T, path string, h http.Handler) (stop func()) {
	t.Helper()
	l, err := api.ListenUnix(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	return func() { _ = s.Close(); <-done }
}

func TestSnapshot(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd00::1")
	for _, tc := range []struct {
		name  string
		addrs []netip.Addr
		want  netip.Addr
	}{{"both", []netip.Addr{v6, v4}, v4}, {"IPv6 only", []netip.Addr{v6}, netip.Addr{}}, {"none yet", nil, netip.Addr{}}} {
		if got := (snapshot{status: api.Status{Addresses: tc.addrs}}).address(); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
	if _, ok := (snapshot{nodes: []api.Node{{Name: "other"}}}).self(); ok {
		t.Error("somebody else is taken for this machine")
	}
}

// Who takes part in the agreement, and as what.
func TestMembers(t *testing.T) {
	w := newWorld(nil, "home", discard)
	note := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	w.set(snapshot{nodes: []api.Node{
		{ID: identity.ID{1}, Kind: api.KindNode, NetworkID: "home", Self: true, Annotations: note(api.NoteRoleWanted, "master")},
		{ID: identity.ID{2}, Kind: api.KindNode, NetworkID: "home", Connected: true, Annotations: note(api.NoteClusterUID, testUID, api.NoteEpoch, "7", api.NoteServer, "10.9.0.2:6443")},
		{ID: identity.ID{3}, Kind: api.KindNode, NetworkID: "home", Annotations: note(api.NoteEpoch, "-1")},
		{ID: identity.ID{4}, Kind: api.KindBridge, NetworkID: "home", Connected: true},
		{ID: identity.ID{5}, Kind: api.KindNode, NetworkID: "office", Connected: true},
		{ID: identity.ID{6}, Kind: api.KindNode, NetworkID: "home", Connected: true, Annotations: note(api.NotePhase, "disabled", api.NoteRoleWanted, "master")},
		{ID: identity.ID{7}, Kind: api.KindNode, NetworkID: "home", Connected: true, Annotations: note(api.NotePhase, "leaving")},
		{ID: identity.ID{8}, Kind: api.KindNode, NetworkID: "home", Connected: true, Annotations: note(api.NoteVotes, "no")},
	}})
	want := []genesis.Member{
		{ID: identity.ID{1}, Connected: true, Wanted: "master"},
		{ID: identity.ID{2}, Connected: true, ClusterUID: testUID, Epoch: 7, Server: true},
		{ID: identity.ID{3}},
		{ID: identity.ID{8}, Connected: true, Abstains: true},
	}
	if got := w.Members(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// Whose word for being a server counts.
func TestServers(t *testing.T) {
	good := api.Node{ID: identity.ID{1}, Name: "box", Kind: api.KindNode, NetworkID: "home", Connected: true,
		Annotations: map[string]string{api.NoteClusterUID: testUID, api.NoteServer: "10.9.0.2:6443", api.NoteCA: "ca"}}
	for _, tc := range []struct {
		name string
		edit func(*api.Node)
		want int
	}{
		{"a server", func(*api.Node) {}, 1},
		{"not connected: known all the same", func(n *api.Node) { n.Connected = false }, 1},
		{"a bridge", func(n *api.Node) { n.Kind = api.KindBridge }, 0},
		{"another network_id", func(n *api.Node) { n.NetworkID = "office" }, 0},
		{"no cluster", func(n *api.Node) { n.Annotations = map[string]string{api.NoteServer: "x"} }, 0},
		{"no endpoint", func(n *api.Node) { n.Annotations = map[string]string{api.NoteClusterUID: testUID} }, 0},
	} {
		n := good
		tc.edit(&n)
		got := servers(snapshot{nodes: []api.Node{n}}, "home")
		if len(got) != tc.want {
			t.Errorf("%s: got %+v", tc.name, got)
		}
		if len(got) == 1 && (got[0].Endpoint != "10.9.0.2:6443" || got[0].CAHash != "ca" || got[0].Connected != n.Connected) {
			t.Errorf("%s: got %+v", tc.name, got[0])
		}
	}
}

// Run as a whole: what ends it, and what does not.
func TestRun(t *testing.T) {
	m, machines := newMesh(t, 1, 1)
	mc := machines[0]
	options := func() Options {
		return Options{Config: mc.config(), OverlaySocket: filepath.Join(mc.dir, "overlay.sock"), Socket: filepath.Join(mc.dir, "agent.sock"),
			StateDir: filepath.Join(mc.dir, "state"), Containerd: filepath.Join(mc.dir, "none.sock"), Files: k3s.Files{Dir: filepath.Join(mc.dir, "k3s")},
			PeerPort: mc.port, Notify: &notes{}}
	}
	t.Run("without containerd it waits, and ends when told", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		o, done := options(), make(chan error, 1)
		go func() { done <- Run(ctx, o) }()
		m.wait(t, "a word about containerd", func(n []api.Node) bool { return strings.Contains(n[0].Annotations[api.NoteWaiting], "containerd") })
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := o.Notify.(*notes); n.ready != 1 || len(n.status) == 0 {
			t.Errorf("systemd was told %+v", n)
		}
	})
	t.Run("a watchdog that fails ends it", func(t *testing.T) {
		o := options()
		o.Watchdog = func(context.Context, func() error) error { return errors.New("no socket") }
		if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "run the watchdog: no socket") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an image that is none", func(t *testing.T) {
		o := options()
		o.Config.K3s.Image = "Not An Image"
		if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "k3s.image") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a state directory that cannot be made", func(t *testing.T) {
		o := options()
		o.StateDir = filepath.Join(o.OverlaySocket, "below-a-socket")
		if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "open the state") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("another agent", func(t *testing.T) {
		s, err := store.Open(filepath.Join(mc.dir, "state"))
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(Run(t.Context(), options()), s.Close())
		if !errors.Is(err, store.ErrLocked) {
			t.Errorf("got %v", err)
		}
	})
}

// notes is a service manager.
type notes struct {
	ready  int
	status []string
}

func (n *notes) Ready() error { n.ready++; return nil }

func (n *notes) Status(text string) error { n.status = append(n.status, text); return nil }

func TestTellsTheServiceManagerOnlyNews(t *testing.T) {
	b := newBench(t, store.Server, nil)
	n := &notes{}
	b.opt.Notify = n
	for _, line := range []string{"a", "a", "b", "b", "a"} {
		b.tellReady(line)
	}
	if n.ready != 1 || !slices.Equal(n.status, []string{"a", "b", "a"}) {
		t.Errorf("told %+v", n)
	}
}
