package agent

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/kube/kubetest"
	"github.com/kairos-io/kairos/agent/store"
)

// A server that came back from its upgrade keeps the others waiting until it
// is ready, although its boot was found good before, and its agent restarted since.
func TestLockIsKeptUntilReady(t *testing.T) {
	for _, tt := range []struct {
		name     string
		restarts bool
	}{{"one agent", false}, {"a restart in between", true}} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, store.Server, nil)
			b.machine.kube = kubetest.New(t)
			b.turns(t, 3)
			if err := b.lock.Take(t.Context(), b.nodeName(), "upgrade to v2"); err != nil {
				t.Fatal(err)
			}
			healthy := b.prober
			b.prober = func(k3s.Probe) prober { return sick{fakeProbe{kube: b.machine.kube}} }
			b.turns(t, 1)
			w := httptest.NewRecorder()
			b.handleUnlock(w, httptest.NewRequest(http.MethodDelete, "/control/v1/lock", http.NoBody))
			b.turns(t, 2)
			if got := b.machine.kube.Lease.Spec.Holder; w.Code != http.StatusOK || got != b.nodeName() {
				t.Errorf("%d; while it is not ready the lock is held by %q", w.Code, got)
			}
			if tt.restarts {
				b.restart(t, nil)
				healthy = b.prober
			}
			b.prober = healthy
			b.turns(t, 3)
			if got := b.machine.kube.Lease.Spec.Holder; got != "" {
				t.Errorf("it is ready, and the lock is held by %q", got)
			}
		})
	}
}
