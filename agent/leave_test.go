package agent

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/departure"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/kube/kubetest"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// trio is a cluster of a server and a worker with Kubernetes in memory.
//
//	test ──unix socket── worker's agent ──mutual TLS── server's agent ── kube
type trio struct {
	mesh           *mesh
	server, worker *machine
	kube           *kubetest.Cluster
	stopServer     func()
	stopWorker     func()
}

func newTrio(t *testing.T) *trio {
	t.Helper()
	m, machines := newMesh(t, 2, 2)
	c := &trio{mesh: m, server: machines[0], worker: machines[1], kube: kubetest.New(t)}
	c.server.kube = c.kube
	prepare(t, c.server, store.Server)
	prepare(t, c.worker, store.Worker)
	files, named := c.worker.runtime.files, []identity.ID{m.nodes[0].ID}
	err := errors.Join(files.WriteMarker(k3s.Marker{UID: testUID, Epoch: 1, Role: store.Worker, Servers: named}),
		files.SaveJoin(joinOf(fakeCA(), c.server.daemon.addr)))
	if err != nil {
		t.Fatal(err)
	}
	saveState(t, c.worker, store.State{NetworkID: "home", Phase: store.Running, Role: store.Worker, ClusterUID: testUID, Epoch: 1, Servers: named})
	for _, n := range m.nodes {
		c.kube.Nodes[n.Name] = &kubetest.Node{Address: n.Addresses[0].String()}
	}
	c.stopServer, c.stopWorker = sync.OnceFunc(c.server.start(t)), sync.OnceFunc(c.worker.start(t))
	t.Cleanup(func() { c.stopWorker(); c.stopServer() })
	c.mesh.wait(t, "a server", func(n []api.Node) bool { return n[0].Annotations[api.NoteServer] != "" })
	c.waitWorker(t)
	return c
}

func (c *trio) waitWorker(t *testing.T) {
	t.Helper()
	c.mesh.wait(t, "a worker", func(n []api.Node) bool { return n[1].Annotations[api.NoteReady] == "true" })
}

// restart starts the worker's agent anew, as after a crash.
func (c *trio) restart(t *testing.T) {
	t.Helper()
	c.stopWorker()
	c.mesh.edit(func() { c.mesh.nodes[1].Annotations = nil })
	c.stopWorker = sync.OnceFunc(c.worker.start(t))
}

// pod puts one on the worker.
func (c *trio) pod(name string, protected bool) {
	c.kube.Pods = append(c.kube.Pods, &kubetest.Pod{Namespace: "ns", Name: name, UID: name, Node: c.mesh.nodes[1].Name, Phase: "Running", Protected: protected})
}

// call asks an agent, which may be about to open its socket.
func call(t *testing.T, m *machine, x api.Exchange) error {
	t.Helper()
	client := api.NewClient(filepath.Join(m.dir, "agent.sock"))
	defer client.CloseIdle()
	for limit := time.Now().Add(deadline); ; pause(t.Context(), 5*time.Millisecond) {
		if err := client.Call(t.Context(), x); !errors.Is(err, api.ErrNotRunning) || time.Now().After(limit) {
			return err
		}
	}
}

func ask(t *testing.T, m *machine, req agentapi.LeaveRequest) error {
	t.Helper()
	var st agentapi.LeaveStatus
	err := call(t, m, api.Exchange{Method: http.MethodPost, Path: "/control/v1/leave", In: req, Out: &st})
	if err == nil && !st.Asked {
		t.Errorf("asked to leave, and the status is %+v", st)
	}
	return err
}

// holder is who has the upgrade lock.
func (c *trio) holder() (name string) {
	c.kube.Edit(func() { name = c.kube.Lease.Spec.Holder })
	return name
}

// leave asks and waits for the end.
func leave(t *testing.T, m *machine, req agentapi.LeaveRequest) agentapi.LeaveStatus {
	t.Helper()
	if err := ask(t, m, req); err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(deadline); time.Now().Before(limit); {
		var st agentapi.LeaveStatus
		if err := call(t, m, api.Exchange{Method: http.MethodGet, Path: "/control/v1/leave", Out: &st}); err != nil {
			t.Fatal(err)
		}
		if st.Done || st.Error != nil {
			return st
		}
		pause(t.Context(), 5*time.Millisecond)
	}
	t.Fatal("leaving does not end")
	return agentapi.LeaveStatus{}
}

// gone checks that nothing of the worker is left in the mesh or on the machine.
func (c *trio) gone(t *testing.T) {
	t.Helper()
	c.mesh.mu.Lock()
	notes, prefixes := c.mesh.nodes[1].Annotations, c.mesh.nodes[1].Prefixes
	c.mesh.mu.Unlock()
	if want := map[string]string{"phase": "leaving", "role.wanted": "worker"}; !maps.Equal(notes, want) || len(prefixes) > 0 {
		t.Errorf("still tells %v and announces %v", notes, prefixes)
	}
	c.worker.runtime.mu.Lock()
	defer c.worker.runtime.mu.Unlock()
	if c.worker.runtime.status.Exists {
		t.Error("k3s is still there")
	}
}

func TestWorkerLeaves(t *testing.T) {
	c := newTrio(t)
	c.pod("web", false)
	c.kube.Before = func(r *http.Request) {
		if r.Method == http.MethodGet {
			c.kube.Finish()
		}
	}
	st := leave(t, c.worker, agentapi.LeaveRequest{})
	if !st.Done || st.Error != nil || len(st.Left) > 0 {
		t.Errorf("the end is %+v", st)
	}
	c.gone(t)
	self := c.mesh.nodes[1].Name
	if c.kube.Nodes[self] != nil || c.kube.Nodes[c.mesh.nodes[0].Name] == nil || len(c.kube.Pods) > 0 {
		t.Errorf("the cluster has nodes %v, pods %v", c.kube.Nodes, c.kube.Pods)
	}
	// k3s is stopped before its node is deleted: it would register again.
	if i := slices.Index(c.kube.Log, "DELETE /api/v1/nodes/"+self); i != len(c.kube.Log)-1 {
		t.Errorf("done in the order %q", c.kube.Log)
	}
	// Once more is no mistake.
	if st := leave(t, c.worker, agentapi.LeaveRequest{}); !st.Done {
		t.Errorf("again: %+v", st)
	}
	// Another agent in the same boot stays out, and comes back after the next one.
	starts := c.worker.runtime.starts
	c.restart(t)
	c.mesh.wait(t, "the word that it stays out", func(n []api.Node) bool { return n[1].Annotations[api.NotePhase] == "leaving" })
	if c.worker.runtime.starts != starts {
		t.Error("k3s was started again")
	}
	mustRemove(t, filepath.Join(c.worker.dir, "run"))
	c.restart(t)
	c.waitWorker(t)
}

// With its identity the machine keeps its votes, and nothing of its role.
func TestLeaveKeepsVotes(t *testing.T) {
	c := newTrio(t)
	c.stopWorker()
	s, err := store.Open(filepath.Join(c.worker.dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Load()
	err = errors.Join(err, s.Update(func(st *store.State) error { st.Genesis = json.RawMessage(`{"epoch":1,"abstain":1}`); return nil }), s.Close())
	if err != nil {
		t.Fatal(err)
	}
	c.restart(t)
	c.waitWorker(t)
	if st := leave(t, c.worker, agentapi.LeaveRequest{KeepIdentity: true}); !st.Done {
		t.Fatalf("the end is %+v", st)
	}
	c.stopWorker()
	raw, err := os.ReadFile(filepath.Join(c.worker.dir, "state", "state.json"))
	if err != nil || !strings.Contains(string(raw), `"abstain": 1`) || strings.Contains(string(raw), testUID) || strings.Contains(string(raw), "worker") {
		t.Errorf("remembered: %s, %v", raw, err)
	}
}

func TestBudgetsHoldUntilForced(t *testing.T) {
	c := newTrio(t)
	c.pod("guarded", true)
	self := c.mesh.nodes[1].Name
	st := leave(t, c.worker, agentapi.LeaveRequest{DrainSeconds: 1})
	if st.Done || st.Error == nil || st.Error.Message != "after 1s there still is 1 pod here: ns/guarded (its disruption budget does not allow it yet)" ||
		!strings.Contains(st.Error.Hint, "--force") {
		t.Fatalf("the end is %+v, %+v", st, st.Error)
	}
	if n := c.kube.Nodes[self]; n == nil || n.Closed {
		t.Errorf("the node that stays after all is %+v", n)
	}
	if c.worker.runtime.stops > 0 || c.mesh.nodes[1].Annotations[api.NoteRole] != "worker" {
		t.Error("it left nevertheless")
	}
	st = leave(t, c.worker, agentapi.LeaveRequest{DrainSeconds: 1, Force: true})
	if !st.Done || len(st.Left) != 1 || st.Left[0] != "pods that do not end: ns/guarded (it is ending)" { // no kubelet ends it here
		t.Errorf("by force: %+v", st)
	}
	if !c.kube.Pods[0].Ending || c.kube.Nodes[self] != nil {
		t.Errorf("the pod is %+v, the nodes %v", c.kube.Pods[0], c.kube.Nodes)
	}
	c.gone(t)
}

func TestLeaveWithoutTheServer(t *testing.T) {
	c := newTrio(t)
	c.stopServer()
	st := leave(t, c.worker, agentapi.LeaveRequest{})
	if st.Done || st.Error == nil || !strings.HasPrefix(st.Error.Message, "the cluster's server cannot be asked to empty this node: ") {
		t.Fatalf("the end is %+v", st)
	}
	if c.worker.runtime.stops > 0 {
		t.Error("it left nevertheless")
	}
	st = leave(t, c.worker, agentapi.LeaveRequest{Force: true})
	want := "the node object: `kubectl delete node " + c.mesh.nodes[1].Name + "`"
	if !st.Done || !slices.Equal(st.Left, []string{want}) {
		t.Errorf("by force: %+v", st)
	}
	c.gone(t)
}

// A state that cannot be used is one of the reasons to leave.
func TestLeaveByTheMarker(t *testing.T) {
	c := newTrio(t)
	c.stopWorker()
	if err := os.WriteFile(filepath.Join(c.worker.dir, "state", "state.json"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.restart(t)
	c.mesh.wait(t, "the damage told", func(n []api.Node) bool {
		return strings.Contains(n[1].Annotations[api.NoteWaiting], "state cannot be used")
	})
	if st := leave(t, c.worker, agentapi.LeaveRequest{}); !st.Done {
		t.Fatalf("the end is %+v", st)
	}
	if c.kube.Nodes[c.mesh.nodes[1].Name] != nil {
		t.Error("the node object is still there")
	}
	c.gone(t)
}

func TestTheOnlyServerEndsItsCluster(t *testing.T) {
	c := newTrio(t)
	var refused *api.Error
	for _, req := range []agentapi.LeaveRequest{{}, {Force: true}, {EndCluster: "another"}} {
		if err := ask(t, c.server, req); !errors.As(err, &refused) || refused.Status != http.StatusConflict || !strings.Contains(refused.Hint, "--end-cluster home") {
			t.Errorf("%+v: %v", req, err)
		}
	}
	if err := ask(t, c.server, agentapi.LeaveRequest{EndCluster: "home", KeepIdentity: true}); !errors.As(err, &refused) || !strings.Contains(refused.Message, "this machine's key") {
		t.Errorf("with its identity: %v", err)
	}
	if c.server.runtime.stops > 0 || len(c.kube.Log) > 0 {
		t.Errorf("refused, and done: %d stops, %q", c.server.runtime.stops, c.kube.Log)
	}
	if st := leave(t, c.server, agentapi.LeaveRequest{EndCluster: "home"}); !st.Done || len(st.Left) > 0 {
		t.Errorf("the end is %+v", st)
	}
	if c.server.runtime.stops != 1 || len(c.kube.Log) > 0 {
		t.Errorf("%d stops, %q", c.server.runtime.stops, c.kube.Log)
	}
}

// A machine that belongs to no cluster has nothing to leave but the agreement.
func TestLeaveBeforeThereIsACluster(t *testing.T) {
	m, machines := newMesh(t, 1, 3)
	defer machines[0].start(t)()
	m.wait(t, "a reason to wait", func(n []api.Node) bool { return n[0].Annotations[api.NoteWaiting] != "" })
	if st := leave(t, machines[0], agentapi.LeaveRequest{KeepIdentity: true}); !st.Done || len(st.Left) > 0 {
		t.Errorf("the end is %+v", st)
	}
}

// A member may have its own node emptied and deleted, and no other.
func TestNobodyElsesNode(t *testing.T) {
	c := newTrio(t)
	c.stopWorker()
	victim := "victim-aaaaaa"
	c.kube.Nodes[victim] = &kubetest.Node{Address: "10.99.0.9"}
	a := c.worker.agent(t, c.worker.config())
	defer func() {
		a.peers.CloseIdle()
		a.overlay.CloseIdle()
		if err := a.store.Close(); err != nil {
			t.Error(err)
		}
	}()
	s, _, err := a.world.ask(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	a.world.set(s)
	m := departure.Membership{UID: testUID}
	for _, op := range []string{departure.Drain, departure.Force, departure.Stay, departure.Remove} {
		c.mesh.edit(func() { c.mesh.nodes[1].Name = victim }) // everybody chooses the own name
		var refused *api.Error
		if _, err := a.askServer(t.Context(), m, op); !errors.As(err, &refused) || refused.Status != http.StatusForbidden {
			t.Errorf("%s of another's node: %v", op, err)
		}
	}
	if len(c.kube.Log) > 0 {
		t.Errorf("done: %q", c.kube.Log)
	}
	c.mesh.edit(func() { c.mesh.nodes[1].Name = "nobody" })
	if p, err := a.askServer(t.Context(), m, departure.Remove); err != nil || !p.Gone {
		t.Errorf("a node that is not there: %+v, %v", p, err)
	}
	if _, err := a.askServer(t.Context(), departure.Membership{UID: "another"}, departure.Drain); err == nil || !strings.Contains(err.Error(), "no server of the cluster") {
		t.Errorf("another cluster: %v", err)
	}
	c.mesh.edit(func() { c.mesh.nodes[1].NetworkID = "away" })
	if _, err := a.askServer(t.Context(), m, departure.Remove); err == nil || !strings.Contains(err.Error(), "may not be taken out of Kubernetes") {
		t.Errorf("from another network: %v", err)
	}
}

func TestUpgradeLock(t *testing.T) {
	c := newTrio(t)
	lock := func(m *machine) (LockAnswer, error) {
		var ans LockAnswer
		err := call(t, m, api.Exchange{Method: http.MethodPost, Path: "/control/v1/lock", In: LockRequest{Reason: "upgrade to v2"}, Out: &ans})
		return ans, err
	}
	unlock := func(m *machine) {
		if err := call(t, m, api.Exchange{Method: http.MethodDelete, Path: "/control/v1/lock"}); err != nil {
			t.Error(err)
		}
	}
	// Workers may be upgraded at any time.
	if ans, err := lock(c.worker); err != nil || ans.Held || c.kube.Lease != nil {
		t.Errorf("a worker: %+v, %v", ans, err)
	}
	unlock(c.worker)
	for range 2 { // the second time as after a reboot
		if ans, err := lock(c.server); err != nil || !ans.Held || c.kube.Lease.Spec.Holder != c.mesh.nodes[0].Name {
			t.Errorf("the server: %+v, %v", ans, err)
		}
	}
	unlock(c.server)
	if c.kube.Lease.Spec.Holder != "" {
		t.Errorf("given back, and held by %q", c.kube.Lease.Spec.Holder)
	}
	// Where the API does not answer, it is given back later.
	if _, err := lock(c.server); err != nil {
		t.Fatal(err)
	}
	c.kube.Edit(func() { c.kube.Down = errors.New("no route") })
	unlock(c.server)
	c.kube.Edit(func() { c.kube.Down = nil })
	c.mesh.edit(func() {}) // the loop turns
	for limit := time.Now().Add(deadline); c.holder() != ""; pause(t.Context(), 5*time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("never given back: held by %q", c.holder())
		}
	}
	c.kube.Lease.Spec.Holder, c.kube.Lease.Spec.Seconds = "other", 600
	var refused *api.Error
	if _, err := lock(c.server); !errors.As(err, &refused) || refused.Status != http.StatusConflict ||
		!strings.HasPrefix(refused.Message, "other holds the upgrade lock") || !strings.Contains(refused.Hint, "ends in 1") {
		t.Errorf("another's: %v", err)
	}
	c.kube.Down = errors.New("no route")
	if _, err := lock(c.server); err == nil || !strings.Contains(err.Error(), "read the upgrade lock: no route") {
		t.Errorf("no API: %v", err)
	}
}
