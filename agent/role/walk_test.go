package role

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/identity"
)

// walk is a machine on which every step works, as far as the facts show it. It
// lets Plan be followed from the first boot to everyday life.
//
//	facts ──Plan──> actions ──do──> facts
type walk struct {
	f     Facts
	steps []string
}

// do carries one step out.
func (w *walk) do(a Action) {
	f := &w.f
	switch a := a.(type) {
	case Save:
		f.State, f.Store = a.State, StoreLoaded
	case Pin:
		f.Pinned = true
	case PrepareImage:
		f.Image = Present
	case ProposeStarted:
		f.Genesis.Decision.Started = true
	case WriteMarker:
		f.Marker = Marker{Presence: Present, UID: a.UID, Epoch: a.Epoch, Role: a.Role, Servers: a.Servers}
	case StartServer:
		f.K3s = K3s{Container: Present, Running: true, Ready: true, Role: store.Server, UID: a.UID}
		f.Datastore, f.PodCIDR = Present, pods
		f.Servers = []Server{{ID: f.Self, Name: "box-1", UID: a.UID, Endpoint: "10.9.0.1:6443", CAHash: "ca-a", Connected: true}}
	case FetchJoin:
		f.JoinUID, f.JoinCAHash, f.JoinEndpoint = a.UID, "ca-a", serverOfA.Endpoint
	case StartWorker:
		f.K3s = K3s{Container: Present, Running: true, Ready: true, Role: store.Worker, UID: a.UID}
		f.PodCIDR = pods
	case ApplyNetwork:
		f.AppliedPodCIDR = a.PodCIDR
	case WithdrawNetwork:
		f.AppliedPodCIDR = netip.Prefix{}
	case Publish:
		f.Published = maps.Clone(a.Annotations)
	case Stop, Restart:
		f.K3s = K3s{Container: Absent}
	}
	w.steps = append(w.steps, brief(a))
}

// turn carries a plan out, and reports whether there was anything to do. It
// stops after limit steps in all: the agent is killed there.
func (w *walk) turn(limit int) bool {
	did := false
	for _, a := range Plan(w.f) {
		if !isDeed(a) {
			continue
		}
		if len(w.steps) == limit {
			return true
		}
		w.do(a)
		did = true
	}
	return did
}

// isDeed: the step changes something. RunGenesis is planned in every turn.
func isDeed(a Action) bool {
	switch a.(type) {
	case Wait, Ask, Note, RunGenesis:
		return false
	}
	return true
}

// settle turns until there is nothing more to do.
func (w *walk) settle(t *testing.T) {
	t.Helper()
	for range 30 {
		if !w.turn(-1) {
			return
		}
	}
	t.Fatalf("never settles: %q", w.steps)
}

// reboot is what a power cut leaves: the disks.
func (w *walk) reboot() {
	f := &w.f
	f.K3s.Running, f.K3s.Ready = false, false
	f.AppliedPodCIDR, f.PodCIDR, f.Published = netip.Prefix{}, netip.Prefix{}, nil
	if f.State.Role == store.Server {
		f.Servers = nil
	}
	w.steps = nil
}

// first is a machine at its first boot whose cluster has just been decided.
func first(server bool) Facts {
	f := fresh()
	f.Genesis.Decision = &Decision{UID: uidA, Epoch: 1, Servers: []identity.ID{other}, Started: !server}
	if server {
		f.Genesis.Decision.Servers = []identity.ID{self}
	} else {
		f.Servers = []Server{serverOfA}
	}
	return f
}

func checkArrived(t *testing.T, f Facts, r store.Role) {
	t.Helper()
	if f.State.Phase != store.Running || f.State.Role != r || f.State.ClusterUID != uidA || f.Published["ready"] != "true" {
		t.Errorf("arrived at %+v, published %v", f.State, f.Published)
	}
	if !f.K3s.Running || f.K3s.Role != r || f.AppliedPodCIDR != pods || !f.Pinned {
		t.Errorf("arrived with k3s %+v, pods %v, pinned %v", f.K3s, f.AppliedPodCIDR, f.Pinned)
	}
}

// The whole way, in its order: nothing is done before what protects it.
func TestWalk(t *testing.T) {
	for _, tc := range []struct {
		name   string
		server bool
		want   string
	}{
		{"the first server", true, "save decided server, pin, image, propose started, mark server, save starting server, start server first, save running server, network 10.42.3.0/24"},
		{"a worker", false, "save decided worker, pin, image, fetch join, mark worker, save starting worker, start worker, save running worker, network 10.42.3.0/24"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := &walk{f: first(tc.server)}
			w.settle(t)
			var steps []string
			for _, s := range w.steps {
				switch {
				case s == "publish":
				case len(steps) > 0 && s == steps[len(steps)-1]: // a field more in the same phase
				default:
					steps = append(steps, s)
				}
			}
			// The pod range is saved between phase and network.
			got := strings.ReplaceAll(strings.Join(steps, ", "), "save running server, save running server", "save running server")
			if got != tc.want {
				t.Errorf("went\n%s\nwant\n%s", got, tc.want)
			}
			checkArrived(t, w.f, map[bool]store.Role{true: store.Server, false: store.Worker}[tc.server])
		})
	}
}

// Wherever the agent is killed, the next one arrives; and wherever the power is
// cut, the machine comes back as what it was.
func TestWalkInterrupted(t *testing.T) {
	for _, server := range []bool{true, false} {
		r := map[bool]store.Role{true: store.Server, false: store.Worker}[server]
		whole := &walk{f: first(server)}
		whole.settle(t)
		for _, cut := range []struct {
			name string
			do   func(*walk)
		}{{"agent killed", func(*walk) {}}, {"power cut", (*walk).reboot}} {
			for n := range len(whole.steps) {
				t.Run(fmt.Sprintf("%s/%s after %d steps", r, cut.name, n), func(t *testing.T) {
					w := &walk{f: first(server)}
					for len(w.steps) < n && w.turn(n) {
					}
					cut.do(w)
					w.settle(t)
					checkArrived(t, w.f, r)
					if starts := strings.Count(strings.Join(w.steps, ","), "start server first"); starts > 1 {
						t.Errorf("created the cluster %d times: %q", starts, w.steps)
					}
				})
			}
		}
	}
}

// Switched off and on again, a machine is what it was, and in between nothing
// of Kubernetes is left running or told.
func TestWalkDisabled(t *testing.T) {
	for _, server := range []bool{true, false} {
		r := map[bool]store.Role{true: store.Server, false: store.Worker}[server]
		t.Run(string(r), func(t *testing.T) {
			w := &walk{f: first(server)}
			w.settle(t)
			w.f.ClusterEnabled = false
			w.settle(t)
			if w.f.K3s.Container != Absent || w.f.AppliedPodCIDR.IsValid() || len(w.f.Published) != 2 || w.f.State.Phase != store.Running {
				t.Errorf("off: k3s %+v, pods %v, published %v, state %+v", w.f.K3s, w.f.AppliedPodCIDR, w.f.Published, w.f.State)
			}
			w.f.ClusterEnabled = true
			w.settle(t)
			checkArrived(t, w.f, r)
		})
	}
}

// A server whose address changed is followed, once.
func TestWalkToAServerThatMoved(t *testing.T) {
	w := &walk{f: running(store.Worker)}
	w.settle(t)
	w.steps = nil
	w.f.Servers[0].Endpoint, w.f.JoinEndpoint = serverOfA.Endpoint, "10.9.0.99:6443"
	w.settle(t)
	if got := strings.Join(w.steps, ","); got != "fetch join" {
		t.Errorf("went %q", got)
	}
}

// Every word that stops a machine says what a person can do about it.
func TestAsksHaveHints(t *testing.T) {
	for name, edit := range map[string]func(*Facts){
		"state unusable":       func(f *Facts) { f.Store, f.StateProblem = StoreUnusable, "checksum differs" },
		"other network_id":     func(f *Facts) { f.NetworkID = "office" },
		"data gone":            func(f *Facts) { f.Datastore = Absent },
		"data of another":      func(f *Facts) { f.Marker.UID = uidB },
		"state and data gone":  func(f *Facts) { lose(f); f.Datastore = Absent },
		"state gone, no clue":  func(f *Facts) { lose(f); f.Marker = Marker{Presence: Absent} },
		"containerd is silent": func(f *Facts) { f.K3s = K3s{} },
		"overlay is silent":    func(f *Facts) { f.OverlayUp = false },
	} {
		f := running(store.Server)
		edit(&f)
		told := 0
		for _, a := range Plan(f) {
			reason, hint := "", ""
			switch a := a.(type) {
			case Ask:
				reason, hint = a.Reason, a.Hint
			case Wait:
				reason, hint = a.Reason, a.Hint
			default:
				continue
			}
			told++
			if reason == "" || hint == "" || strings.ContainsAny(reason+hint, "\n") || strings.HasSuffix(reason, ".") {
				t.Errorf("%s: %q, %q", name, reason, hint)
			}
		}
		if told != 1 {
			t.Errorf("%s: told %d things", name, told)
		}
	}
}
