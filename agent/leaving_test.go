package agent

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/api"
)

// status is how far leaving is.
func (m *machine) leaving(t *testing.T) agentapi.LeaveStatus {
	t.Helper()
	var st agentapi.LeaveStatus
	if err := call(t, m, api.Exchange{Method: http.MethodGet, Path: "/control/v1/leave", Out: &st}); err != nil {
		t.Fatal(err)
	}
	return st
}

// await waits until leaving is as far as it should be.
func (m *machine) await(t *testing.T, what string, cond func(agentapi.LeaveStatus) bool) agentapi.LeaveStatus {
	t.Helper()
	var st agentapi.LeaveStatus
	for limit := time.Now().Add(deadline); time.Now().Before(limit); pause(t.Context(), 5*time.Millisecond) {
		if st = m.leaving(t); cond(st) {
			return st
		}
	}
	t.Fatalf("never %s: %+v", what, st)
	return st
}

func draining(st agentapi.LeaveStatus) bool {
	return strings.HasPrefix(st.Step, "waiting for 1 pod to end")
}

// A person gives up waiting for a drain (Ctrl-C) and asks again, with --force.
func TestForceCountsInTheMiddle(t *testing.T) {
	c := newTrio(t)
	c.pod("guarded", true)
	if err := ask(t, c.worker, agentapi.LeaveRequest{DrainSeconds: 300}); err != nil {
		t.Fatal(err)
	}
	id := c.worker.await(t, "draining", draining).ID
	if err := ask(t, c.worker, agentapi.LeaveRequest{DrainSeconds: 1, Force: true}); err != nil {
		t.Fatal(err)
	}
	st := c.worker.await(t, "done", func(st agentapi.LeaveStatus) bool { return st.Done || st.Error != nil })
	if !st.Done || st.ID != id || !st.Request.Force {
		t.Errorf("after --force in the middle: %+v, and it was %s", st, id)
	}
}

// A first attempt without --keep-identity was done; the person asks again with it.
func TestKeepIdentityCountsAfterTheEnd(t *testing.T) {
	c := newTrio(t)
	if st := leave(t, c.worker, agentapi.LeaveRequest{}); !st.Done {
		t.Fatalf("%+v", st)
	}
	c.stopServer() // nothing is left to do that takes it
	if st := leave(t, c.worker, agentapi.LeaveRequest{KeepIdentity: true}); !st.Done || !st.Request.KeepIdentity {
		t.Errorf("again, with its identity: %+v", st)
	}
	c.stopWorker()
	raw, err := os.ReadFile(filepath.Join(c.worker.dir, "state", "state.json"))
	if err != nil || strings.Contains(string(raw), testUID) {
		t.Errorf("answered done, and the role that survives the wipe is still there:\n%s, %v", raw, err)
	}
}

// An agent that is restarted goes on with what the one before was asked.
func TestLeavingOutlivesTheAgent(t *testing.T) {
	c := newTrio(t)
	c.pod("guarded", true)
	if err := ask(t, c.worker, agentapi.LeaveRequest{DrainSeconds: 1, Force: true}); err != nil {
		t.Fatal(err)
	}
	id := c.worker.await(t, "draining", draining).ID
	c.restart(t)
	st := c.worker.await(t, "done", func(st agentapi.LeaveStatus) bool { return st.Done || st.Error != nil })
	if !st.Done || st.ID != id {
		t.Errorf("after the restart: %+v, and it was %s", st, id)
	}
	c.restart(t)
	if st := c.worker.leaving(t); !st.Done || st.ID != id {
		t.Errorf("after another one: %+v", st)
	}
}

// What failed stays failed until a person asks again, and is told after a restart too.
func TestFailureOutlivesTheAgent(t *testing.T) {
	c := newTrio(t)
	c.pod("guarded", true)
	if st := leave(t, c.worker, agentapi.LeaveRequest{DrainSeconds: 1}); st.Error == nil {
		t.Fatalf("%+v", st)
	}
	c.restart(t)
	if st := c.worker.leaving(t); st.Error == nil || st.Done {
		t.Errorf("after the restart: %+v", st)
	}
}
