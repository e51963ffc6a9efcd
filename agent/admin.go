package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/kube"
	"github.com/kairos-io/kairos/agent/peer"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
)

// leavePath is where a server's agent does for a leaving node what only an
// administrator may.
const leavePath = "/v1/leave"

// What a leaving node may ask for. Each is one short step that can be repeated.
const (
	opDrain  = "drain"  // one round, as disruption budgets allow
	opForce  = "force"  // one round, whatever they say
	opStay   = "stay"   // it takes pods again
	opRemove = "remove" // delete the node object; its k3s has stopped
)

// leaveCall is the body of POST leavePath. It names no node: a member may ask
// for its own only. The answer is a kube.Progress.
type leaveCall struct {
	UID string `json:"uid"` // of the cluster that is meant
	Op  string `json:"op"`
}

// askServer has a server of the cluster do one step for this node.
func (a *agent) askServer(ctx context.Context, m membership, op string) (kube.Progress, error) {
	s, ok := a.otherServer(m)
	if !ok {
		return kube.Progress{}, errors.New("no server of the cluster is connected")
	}
	body, err := json.Marshal(leaveCall{UID: m.uid, Op: op})
	if err != nil {
		return kube.Progress{}, fmt.Errorf("encode the request: %w", err)
	}
	answer, err := a.peers.Post(ctx, s.ID, leavePath, body)
	if err != nil {
		return kube.Progress{}, err
	}
	var p kube.Progress
	if err := json.Unmarshal(answer, &p); err != nil {
		return kube.Progress{}, fmt.Errorf("decode the answer: %w", err)
	}
	return p, nil
}

// refusedForGood reports whether asking a server again is of no use.
func refusedForGood(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && (e.Status == http.StatusForbidden || e.Status == http.StatusBadRequest)
}

// admin is the Kubernetes API of the server that runs here.
func (a *agent) admin() kube.API {
	return a.prober(k3s.Probe{Role: k3s.Server, Server: a.world.get().address(), Files: a.opt.Files})
}

// localAPI is admin's, for whoever keeps one: the address may change.
type localAPI struct{ a *agent }

// Do implements kube.API.
func (l localAPI) Do(ctx context.Context, method, path string, body []byte) (int, []byte, error) {
	return l.a.admin().Do(ctx, method, path, body)
}

// handleLeaving does one step for another node of this cluster.
func (a *agent) handleLeaving(w http.ResponseWriter, r *http.Request) {
	c, _ := peer.CallerOf(r)
	var call leaveCall
	if err := readJSON(r, &call); err != nil {
		api.WriteError(w, err)
		return
	}
	uid, err := a.serving(r.Context())
	if err == nil && call.UID != uid {
		err = &api.Error{Message: "this server runs another cluster", Status: http.StatusConflict}
	}
	if err != nil {
		api.WriteError(w, err)
		return
	}
	p, err := a.stepFor(r.Context(), c.Node, call.Op)
	if err != nil {
		api.WriteError(w, err)
		return
	}
	a.log.Info("helped a node to leave", "peer", c.ID, "step", call.Op, "pods", len(p.Left))
	api.WriteJSON(w, http.StatusOK, p)
}

// stepFor acts on the node object that has the caller's name, if it also has its
// overlay address: a name alone everybody can take.
func (a *agent) stepFor(ctx context.Context, caller api.Node, op string) (kube.Progress, error) {
	k := a.admin()
	own, found, err := kube.BelongsTo(ctx, k, caller.Name, caller.Addresses)
	switch {
	case err != nil:
		return kube.Progress{}, err
	case !found:
		return kube.Progress{Gone: true}, nil
	case !own:
		return kube.Progress{}, &api.Error{
			Message: fmt.Sprintf("the cluster's node %s is not the machine that asks", caller.Name), Status: http.StatusForbidden,
		}
	}
	switch op {
	case opDrain, opForce:
		return kube.Drain(ctx, k, caller.Name, op == opForce)
	case opStay:
		return kube.Progress{}, kube.Uncordon(ctx, k, caller.Name)
	case opRemove:
		return kube.Progress{}, kube.Remove(ctx, k, caller.Name)
	}
	return kube.Progress{}, &api.Error{Message: fmt.Sprintf("this version knows no step %q", op), Status: http.StatusBadRequest}
}

// LockRequest is the body of POST /control/v1/lock.
type LockRequest struct {
	Reason string `json:"reason"` // one line, for whoever is refused meanwhile
}

// LockAnswer is what it answers. A node that runs no control plane needs no lock.
type LockAnswer struct {
	Held bool `json:"held"`
}

// serverHere reports whether this machine is a server of a cluster, so that the
// lock concerns it.
func (a *agent) serverHere() bool {
	st := a.store.State()
	return a.cfg.Cluster.Enabled && st.Role == store.Server && st.Phase.AtLeast(store.Starting)
}

// handleLock takes the cluster's upgrade lock for this machine.
func (a *agent) handleLock(w http.ResponseWriter, r *http.Request) {
	var req LockRequest
	if err := readJSON(r, &req); err != nil {
		api.WriteError(w, err)
		return
	}
	if !a.serverHere() {
		api.WriteJSON(w, http.StatusOK, LockAnswer{})
		return
	}
	a.unlock.Store(false)
	err := a.lock.Acquire(r.Context(), a.nodeName(), req.Reason)
	var held *kube.HeldError
	if errors.As(err, &held) {
		err = &api.Error{
			Message: held.Error(), Status: http.StatusConflict,
			Hint: fmt.Sprintf("servers are upgraded one after the other: wait for %s; a lock that nobody gives back ends in %s, or with `kubectl -n kube-system delete lease kairos-upgrade`",
				held.Holder, held.Left.Round(time.Minute)+time.Minute),
		}
	}
	if err != nil {
		api.WriteError(w, err)
		return
	}
	a.log.Info("took the upgrade lock", "reason", req.Reason)
	api.WriteJSON(w, http.StatusOK, LockAnswer{Held: true})
}

// handleUnlock gives it back, if this machine has it: at once, or, where this
// node does not work yet, as soon as it is ready. Until then no other server
// shall go down.
func (a *agent) handleUnlock(w http.ResponseWriter, r *http.Request) {
	st := a.report.last.Load()
	if !a.serverHere() {
		api.WriteJSON(w, http.StatusOK, LockAnswer{})
		return
	}
	if st == nil || !st.Ready {
		a.unlock.Store(true)
		api.WriteJSON(w, http.StatusOK, LockAnswer{})
		return
	}
	if err := a.lock.Release(r.Context(), a.nodeName()); err != nil {
		a.unlock.Store(true)
		a.log.Warn("the upgrade lock could not be given back yet", "err", err)
	}
	api.WriteJSON(w, http.StatusOK, LockAnswer{})
}

// unlockWhenReady is handleUnlock's part of a turn.
func (a *agent) unlockWhenReady(ctx context.Context) {
	if st := a.report.last.Load(); !st.Ready || !a.unlock.Load() {
		return
	}
	if err := a.lock.Release(ctx, a.nodeName()); err != nil {
		a.report.logFailure("give the upgrade lock back", err)
		return
	}
	a.unlock.Store(false)
}
