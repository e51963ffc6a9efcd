package role

import (
	"slices"
	"strings"
	"testing"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/store"
)

// What a server's data, and a worker's server, say to another Kubernetes than before.
func TestVersions(t *testing.T) {
	k := func(minor string) agentapi.K3s {
		return agentapi.K3s{Image: "k3s:" + minor, Kubernetes: "v1." + minor + ".1+k3s1"}
	}
	v34, v35, v36, v37 := k("34"), k("35"), k("36"), k("37")
	stopped := func(f *Facts) { f.K3s.Running, f.K3s.Ready = false, false }
	stale := func(f *Facts) { f.K3s.Stale = true }
	both := func(f *Facts) {}
	tests := []struct {
		name     string
		facts    Facts
		state    func(*Facts)
		versions Versions
		server   string // what the server runs, for a worker
		want     []string
	}{
		{"the first start", booted(store.Server), stopped, Versions{Wanted: v35}, "", []string{"start server"}},
		{"a reboot", booted(store.Server), stopped, Versions{Wanted: v35, Ran: v35}, "", []string{"start server"}},
		{"the next minor", booted(store.Server), stopped, Versions{Wanted: v36, Ran: v35}, "", []string{"keep 35", "start server"}},
		{"the next minor, while the other runs", running(store.Server), stale, Versions{Wanted: v36, Ran: v35}, "", []string{"stop"}},
		{"what is wanted is not known yet", booted(store.Server), stopped, Versions{Ran: v35}, "", []string{"start server"}},
		{"back, with a copy", booted(store.Server), stopped, Versions{Wanted: v35, Ran: v36, Kept: &v35}, "", []string{"restore", "start server"}},
		{"back, while the later one runs", running(store.Server), stale, Versions{Wanted: v35, Ran: v36, Kept: &v35}, "", []string{"stop"}},
		{"back, interrupted", booted(store.Server), stopped, Versions{Wanted: v35, Ran: v36, Restoring: true}, "", []string{"restore"}},
		{"back, interrupted, and on again", booted(store.Server), stopped, Versions{Wanted: v36, Ran: v36, Restoring: true}, "", []string{"restore"}},
		{"on again, with a copy", booted(store.Server), stopped, Versions{Wanted: v36, Ran: v36, Kept: &v35}, "", []string{"start server"}},
		{"back, without a copy", booted(store.Server), stopped, Versions{Wanted: v35, Ran: v36}, "", []string{"ask KubernetesVersion"}},
		{"back, without a copy, while the later one runs", running(store.Server), stale, Versions{Wanted: v35, Ran: v36}, "", []string{"note KubernetesVersion"}},
		{"further back than the copy", booted(store.Server), stopped, Versions{Wanted: v34, Ran: v36, Kept: &v35}, "", []string{"ask KubernetesVersion"}},
		{"two at once", booted(store.Server), stopped, Versions{Wanted: v37, Ran: v35}, "", []string{"ask KubernetesVersion"}},
		{"two at once, while the earlier one runs", running(store.Server), stale, Versions{Wanted: v37, Ran: v35}, "", []string{"note KubernetesVersion"}},
		{"nobody knows", booted(store.Server), stopped, Versions{Wanted: agentapi.K3s{Image: "x"}, Ran: v35}, "", []string{"keep 35", "start server"}},
		{"on trial", running(store.Server), both, Versions{Wanted: v36, Ran: v36, Kept: &v35, Trial: true}, "", nil},
		{"found good", running(store.Server), both, Versions{Wanted: v36, Ran: v36, Kept: &v35}, "", []string{"drop"}},
		{"two at once, and no image yet: none is fetched", booted(store.Server), func(f *Facts) { stopped(f); f.Image = Absent }, Versions{Wanted: v37, Ran: v35}, "", []string{"ask KubernetesVersion"}},
		{"the next minor, and no image yet: nothing is stopped", running(store.Server), func(f *Facts) { stale(f); f.Image = Absent }, Versions{Wanted: v36, Ran: v35}, "", []string{"image"}},
		{"the data is gone", booted(store.Server), func(f *Facts) { stopped(f); f.Datastore = Absent }, Versions{Wanted: v36, Ran: v35}, "", []string{"ask NeedsOperator"}},

		{"a worker with its server", booted(store.Worker), stopped, Versions{Wanted: v35}, v35.Kubernetes, []string{"start worker"}},
		{"a worker after its server", booted(store.Worker), stopped, Versions{Wanted: v35}, v36.Kubernetes, []string{"start worker"}},
		{"a worker before its server", booted(store.Worker), stopped, Versions{Wanted: v36}, v35.Kubernetes, []string{"ask KubernetesVersion"}},
		{"a worker before its server, while the earlier one runs", running(store.Worker), stale, Versions{Wanted: v36}, v35.Kubernetes, []string{"note KubernetesVersion"}},
		{"a worker before its server, as it was", booted(store.Worker), stopped, Versions{Wanted: v36, Ran: v36}, v35.Kubernetes, []string{"start worker"}},
		{"a worker far before its server", booted(store.Worker), stopped, Versions{Wanted: v37}, v35.Kubernetes, []string{"ask KubernetesVersion"}},
		{"a worker whose server says nothing", booted(store.Worker), stopped, Versions{Wanted: v36}, "", []string{"start worker"}},
		{"a worker copies nothing", running(store.Worker), both, Versions{Wanted: v36, Kept: &v35}, v36.Kubernetes, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := tt.facts
			tt.state(&f)
			f.Versions, f.Founder = tt.versions, Present
			if f.State.Role == store.Worker {
				server := serverOfA
				server.Kubernetes = tt.server
				f.Servers = []Server{server}
			}
			var got []string
			for _, a := range Plan(f) {
				if step := brief(a); !slices.Contains([]string{"genesis", "publish", "network 10.42.3.0/24", "wait Waiting"}, step) {
					got = append(got, step)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// minorOf is the number in a version of these tests.
func minorOf(k agentapi.K3s) string { return strings.Split(k.Kubernetes+"..", ".")[1] }
