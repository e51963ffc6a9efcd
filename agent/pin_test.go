package agent

import (
	"strings"
	"testing"

	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/store"
)

// The agreement knows from the disk which cluster is this node's own, so that
// nothing that is heard later moves it: the cluster that it runs in, before one
// that is configured.
func TestAgreementIsPinned(t *testing.T) {
	const other = "ffeeddccbbaa99887766554433221100"
	for _, tc := range []struct {
		name, phase, configured, want string
	}{
		{"runs in one", "running", "", testUID},
		{"runs in one, another is configured", "running", other, testUID},
		{"new", "", "", ""},
		{"new, one is configured", "", other, other},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, store.Worker, func(c *config.Config) { c.Cluster.UID = tc.configured })
			b.turns(t, 1)
			f := b.observe(t.Context())
			if f.ClusterUID != tc.configured {
				t.Errorf("the policy sees cluster.uid %q", f.ClusterUID)
			}
			if f.State.Phase = store.Phase(tc.phase); tc.phase == "" {
				f.State = store.State{}
			}
			b.pinVoting(f)
			votes := string(b.store.State().Genesis)
			if got := strings.Contains(votes, `"own"`); got != (tc.want != "") || !strings.Contains(votes, tc.want) {
				t.Errorf("the agreement remembers %s, want own cluster %q", votes, tc.want)
			}
		})
	}
}
