package agent

import (
	"testing"

	"github.com/kairos-io/kairos/agent/role"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/identity"
)

// TestDocumentShowsTheNamedServer: any member can publish the cluster's UID.
func TestDocumentShowsTheNamedServer(t *testing.T) {
	st, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	if _, _, err := st.Load(); err != nil {
		t.Fatal(err)
	}
	server := identity.ID{2}
	if err := st.SaveRole(store.State{Phase: store.Running, Role: store.Worker, ClusterUID: "u", Epoch: 1, Servers: []identity.ID{server}}); err != nil {
		t.Fatal(err)
	}
	a := &agent{store: st}
	f := role.Facts{ClusterEnabled: true, Servers: []role.Server{
		{ID: identity.ID{1}, UID: "u", Endpoint: "10.9.0.1:6443"}, {ID: server, UID: "u", Endpoint: "10.9.0.2:6443"}}}
	if got := a.document(f, outcome{}).Endpoint; got != "https://10.9.0.2:6443" {
		t.Errorf("the cluster is said to be at %s", got)
	}
}
