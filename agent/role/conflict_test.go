package role

import (
	"slices"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/identity"
)

// A certificate of a second cluster can be made by whoever has the token (fault
// A17). A machine that is in a cluster stays in it, is told, and is never advised
// to delete anything; one that is in none joins neither until a person has chosen.
func TestTwoClusters(t *testing.T) {
	thief := identity.ID{66}
	forged := &Decision{UID: uidB, Epoch: 9, Servers: []identity.ID{thief}, Started: true}
	conflict := &Conflict{Own: uidA, Rival: uidB, Server: thief}
	serverOfB := Server{ID: thief, Name: "thief", UID: uidB, Endpoint: "10.9.9.9:6443", CAHash: "ca-b", Connected: true}
	for _, tt := range []struct {
		name  string
		facts Facts
		with  func(*Facts)
		want  []string
		says  []string // parts of what is told
	}{
		{"in a cluster, a rival is known", running(store.Worker), func(f *Facts) { f.Conflict = conflict },
			[]string{"genesis", "note Conflict"}, []string{uidB + " (server " + thief.Short() + ")", "stays with " + uidA}},
		{"the server, a rival is known and seen", running(store.Server), func(f *Facts) { f.Conflict, f.Servers = conflict, append(f.Servers, serverOfB) },
			[]string{"genesis", "note Conflict"}, []string{uidB + " (server thief)"}},
		{"in a cluster, which the agreement's memory lost", running(store.Worker), func(f *Facts) { f.Genesis.Decision = forged },
			[]string{"genesis", "note Conflict"}, []string{"stays with " + uidA}},
		{"in a cluster, a person has chosen it", running(store.Worker), func(f *Facts) { f.Conflict, f.ClusterUID = conflict, uidA }, []string{"genesis"}, nil},
		{"in a cluster, a person has chosen it, the other is seen", running(store.Worker), func(f *Facts) {
			f.Conflict, f.ClusterUID, f.Servers = conflict, uidA, append(f.Servers, serverOfB)
		}, []string{"genesis", "note Conflict"}, []string{"server thief"}},
		{"in a cluster, a person has chosen the other", running(store.Worker), func(f *Facts) { f.ClusterUID = uidB },
			[]string{"genesis", "note Conflict"}, []string{"cluster.uid names " + uidB, "kairos reset"}},
		{"a server says it runs another cluster, and cannot prove it", running(store.Worker), func(f *Facts) { f.Servers = append(f.Servers, serverOfB) },
			[]string{"genesis"}, nil},

		{"new, two certificates", named(false, true), func(f *Facts) { f.Conflict, f.Servers = conflict, []Server{serverOfA} },
			[]string{"genesis", "ask Conflict"}, []string{uidA, uidB, thief.Short(), "cluster.uid"}},
		{"new, two servers", named(false, true), func(f *Facts) { f.Servers = []Server{serverOfA, serverOfB} },
			[]string{"genesis", "ask Conflict"}, []string{uidA, "server thief", "cluster.uid"}},
		{"new, the forged one came first", named(false, true), func(f *Facts) { f.Genesis.Decision, f.Servers = forged, []Server{serverOfA, serverOfB} },
			[]string{"genesis", "ask Conflict"}, []string{uidA, uidB}},
		{"named to create it, and another server is there", named(true, false), func(f *Facts) { f.Servers = []Server{serverOfB} },
			[]string{"genesis", "ask Conflict"}, []string{uidB}},
		{"new, a person has chosen", named(false, true), func(f *Facts) {
			f.Conflict, f.ClusterUID, f.Servers = conflict, uidA, []Server{serverOfA, serverOfB}
		}, []string{"genesis", "fetch join", "wait Waiting"}, nil},
		{"new, a person has chosen what is not proven", named(false, true), func(f *Facts) { f.ClusterUID, f.Servers = uidB, []Server{serverOfA} },
			[]string{"genesis", "wait Waiting"}, []string{"can prove cluster " + uidB}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := tt.facts
			f.Servers = slices.Clone(f.Servers)
			tt.with(&f)
			var got []string
			said := ""
			for _, a := range Plan(f) {
				switch a := a.(type) {
				case Publish:
					continue
				case Note:
					said += a.Reason + a.Hint
				case Ask:
					said += a.Reason + a.Hint
				case Wait:
					said += a.Reason + a.Hint
				}
				got = append(got, brief(a))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("plan\n got %q\nwant %q", got, tt.want)
			}
			for _, s := range tt.says {
				if !strings.Contains(said, s) {
					t.Errorf("does not say %q: %s", s, said)
				}
			}
			if strings.Contains(said, "move /var/lib") {
				t.Errorf("advises to delete what the machine has: %s", said)
			}
		})
	}
}
