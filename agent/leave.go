package agent

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kairos-io/kairos/agent/genesis"
	"github.com/kairos-io/kairos/agent/kube"
	"github.com/kairos-io/kairos/agent/role"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// leaveTimes is the pace of leaving; tests have less patience.
type leaveTimes struct {
	pace    time.Duration // between two rounds
	forced  time.Duration // for pods to end that were forced to
	missing time.Duration // for a server that does not answer to come back
	retire  time.Duration // for the loop to stop k3s and withdraw
	remove  time.Duration // for the node object to be deleted
}

var patientTimes = leaveTimes{pace: 2 * time.Second, forced: time.Minute, missing: 30 * time.Second, retire: 2 * time.Minute, remove: time.Minute}

// DefaultDrain is how long pods have to end before they are forced or leaving fails.
const DefaultDrain = 5 * time.Minute

// DefaultLeftFile is there from when this node began to leave until the next
// boot: it is on a tmpfs, and keeps a restarted agent from joining again.
const DefaultLeftFile = "/run/kairos/left"

// LeaveRequest is the body of POST /control/v1/leave.
type LeaveRequest struct {
	// Force goes on where pods do not end in time or the cluster does not answer.
	Force bool `json:"force,omitempty"`
	// KeepIdentity forgets the role and keeps the votes, for a machine that will
	// come back under the same key.
	KeepIdentity bool `json:"keep_identity,omitempty"`
	// EndCluster is the network_id, from a person who knows that this machine is
	// the cluster's only server.
	EndCluster string `json:"end_cluster,omitempty"`
	// DrainSeconds is how long pods have to end; 0: DefaultDrain.
	DrainSeconds int `json:"drain_seconds,omitempty"`
}

func (r LeaveRequest) drainLimit() time.Duration {
	if r.DrainSeconds <= 0 {
		return DefaultDrain
	}
	return time.Duration(r.DrainSeconds) * time.Second
}

// LeaveStatus is how far leaving is: the answer to POST and GET /control/v1/leave.
type LeaveStatus struct {
	// ID is the operation's. It is another one once a request came after the end
	// of the one before; Request is the last word of whoever asked.
	ID      string       `json:"id,omitempty"`
	Request LeaveRequest `json:"request,omitzero"`

	Asked bool       `json:"asked"`                 // somebody asked for it since this machine booted
	Step  string     `json:"step"`                  // one line: what is being done
	Done  bool       `json:"done"`                  // this node belongs to no cluster any more
	Left  []string   `json:"left_behind,omitempty"` // what could not be cleaned up elsewhere
	Error *api.Error `json:"error,omitempty"`       // it failed; ask again to go on
}

// handleLeave begins to leave, or goes on with it; GET tells how far it is.
func (a *agent) handleLeave(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		api.WriteJSON(w, http.StatusOK, a.leave.get())
		return
	}
	var req LeaveRequest
	err := readJSON(r, &req)
	var m membership
	if err == nil {
		m, err = a.membership()
	}
	if err == nil {
		err = a.mayLeave(m, req)
	}
	if err != nil {
		api.WriteError(w, err)
		return
	}
	if err := a.leave.run(req, a.tryToLeave); err != nil {
		api.WriteError(w, err)
		return
	}
	api.WriteJSON(w, http.StatusOK, a.leave.get())
}

// tryToLeave is one attempt of the operation that is under way.
func (a *agent) tryToLeave() error {
	id := a.leave.get().ID
	m, err := a.membership()
	if err == nil {
		a.log.Warn("leaving the cluster, as a person asked", "operation", id)
		err = a.leaveCluster(a.life, m)
	}
	if err != nil {
		a.log.Error("leaving the cluster failed", "operation", id, "err", err)
	}
	return err
}

// membership is the cluster that this machine belongs to.
type membership struct {
	uid     string // "": none
	server  bool
	servers []identity.ID
}

// membership goes by the state, and where that is lost by the marker in k3s' data.
func (a *agent) membership() (membership, error) {
	if st := a.store.State(); st.Phase.AtLeast(store.Starting) {
		return membership{st.ClusterUID, st.Role == store.Server, st.Servers}, nil
	}
	m, _, err := a.opt.Files.ReadMarker()
	return membership{m.UID, m.Role == store.Server, m.Servers}, err
}

// mayLeave refuses what a person has to know first.
func (a *agent) mayLeave(m membership, req LeaveRequest) error {
	if !m.server {
		return nil
	}
	if req.KeepIdentity {
		return &api.Error{
			Message: "the agreement names this machine's key as the cluster's server: a server whose data is gone cannot come back under it",
			Hint:    "leave out --keep-identity", Status: http.StatusConflict,
		}
	}
	if _, ok := a.otherServer(m); !ok && req.EndCluster != a.cfg.NetworkID {
		return &api.Error{
			Message: fmt.Sprintf("this machine is the only server of cluster %q: when it leaves, the cluster and all that Kubernetes knows ends for good", a.cfg.NetworkID),
			Hint:    fmt.Sprintf("if that is meant, say so: --end-cluster %s", a.cfg.NetworkID), Status: http.StatusConflict,
		}
	}
	return nil
}

// otherServer is a connected server of the cluster other than this machine.
func (a *agent) otherServer(m membership) (role.Server, bool) {
	w := a.world.get()
	for _, s := range servers(w, a.cfg.NetworkID) {
		if s.UID == m.uid && s.ID != w.status.ID && s.Connected && (len(m.servers) == 0 || slices.Contains(m.servers, s.ID)) {
			return s, true
		}
	}
	return role.Server{}, false
}

// leaveCluster empties this node, stops k3s, deletes the node object and forgets
// the role. It can be asked for again after it failed: what is done is done. The
// request is read where it decides, because a person may have changed it by then.
func (a *agent) leaveCluster(ctx context.Context, m membership) error {
	others := func() bool { return m.uid != "" && a.leave.request().EndCluster == "" } // somebody is left who cares
	reached := false
	if others() && !a.leave.nodeGone() {
		var err error
		if reached, err = a.drain(ctx, m); err != nil {
			return err
		}
	}
	a.leave.step("stopping k3s, and withdrawing the role and the routes")
	if err := a.leave.begin(); err != nil {
		return err
	}
	if err := a.waitRetired(ctx); err != nil && (ctx.Err() != nil || !a.leave.request().Force) {
		return err
	}
	switch {
	case a.leave.nodeGone():
	case reached:
		if err := a.removeNode(ctx, m); err != nil {
			return err
		}
	case others():
		a.leave.leftBehind(a.nodeLeft())
	}
	if a.leave.request().KeepIdentity {
		if err := a.forget(); err != nil {
			return fmt.Errorf("forget the role: %w", err)
		}
		a.keepOperation(a.leave.note(func(o *operation) { o.Forgotten = true }))
	}
	a.log.Warn("this node has left its cluster", "cluster", m.uid)
	return nil
}

// keepOperation tells of an operation that could not be written down: it goes on
// all the same, and only another agent in this boot would not know of it.
func (a *agent) keepOperation(err error) {
	if err != nil {
		a.log.Warn("how far leaving is could not be written down", "err", err)
	}
}

// drain goes round after round until no pod is left that has to go. reached is
// false where, by force, it went on without a server.
func (a *agent) drain(ctx context.Context, m membership) (reached bool, err error) {
	began, times := time.Now(), a.leave.times
	answered := began
	var forced time.Time // when the first forced round was answered
	for {
		d := a.leave.request()
		force := d.Force && time.Since(began) > d.drainLimit()
		p, err := a.askServer(ctx, m, drainOp(force))
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case d.EndCluster != "":
			return false, nil
		case err == nil && (p.Gone || len(p.Left) == 0):
			return true, nil
		case err == nil:
			answered = time.Now()
			a.leave.step("waiting for %s to end: %s", countPods(len(p.Left)), firstPods(p.Left))
			if time.Since(began) > d.drainLimit() && !d.Force {
				return true, a.stay(ctx, p.Left, m)
			}
			if force && forced.IsZero() {
				forced = answered
			}
			if force && time.Since(forced) > times.forced {
				a.leave.leftBehind("pods that do not end: " + firstPods(p.Left))
				return true, nil
			}
		case refusedForGood(err):
			return true, err
		case time.Since(answered) > times.missing && d.Force:
			return false, nil
		case time.Since(answered) > times.missing:
			return false, &api.Error{Message: "the cluster's server cannot be asked to empty this node: " + err.Error(),
				Hint: "see `kairos status`; --force leaves without it"}
		default:
			a.leave.step("asking the cluster's server to empty this node: %s", err)
		}
		pause(ctx, times.pace)
	}
}

func drainOp(force bool) string {
	if force {
		return opForce
	}
	return opDrain
}

// stay gives up leaving: the node takes pods again.
func (a *agent) stay(ctx context.Context, left []kube.Pod, m membership) error {
	e := &api.Error{
		Message: fmt.Sprintf("after %s there still is %s here: %s", a.leave.request().drainLimit(), countPods(len(left)), firstPods(left)),
		Hint:    "see to them, or leave with --force, which does not respect disruption budgets",
	}
	for began := time.Now(); ; pause(ctx, a.leave.times.pace) {
		_, err := a.askServer(ctx, m, opStay)
		if err == nil {
			return e
		}
		if ctx.Err() != nil || refusedForGood(err) || time.Since(began) > a.leave.times.missing {
			break
		}
	}
	e.Hint += fmt.Sprintf("; this node takes no new pods: `kubectl uncordon %s`", a.nodeName())
	return e
}

// waitRetired waits for the loop, which owns k3s.
func (a *agent) waitRetired(ctx context.Context) error {
	t := time.NewTimer(a.leave.times.retire)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-a.leave.retired:
		return nil
	case <-t.C:
		why := a.report.last.Load().Cluster.Waiting
		return &api.Error{Message: strings.TrimSuffix("k3s could not be stopped: "+why, ": "), Hint: "see `kairos status` and `systemctl status containerd`"}
	}
}

// removeNode deletes the node object, as soon as a server does it.
func (a *agent) removeNode(ctx context.Context, m membership) error {
	a.leave.step("deleting this node from the cluster")
	began := time.Now()
	for {
		_, err := a.askServer(ctx, m, opRemove)
		switch {
		case err == nil:
			a.keepOperation(a.leave.note(func(o *operation) { o.NodeGone = true }))
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Since(began) < a.leave.times.remove && !refusedForGood(err):
			pause(ctx, a.leave.times.pace)
			continue
		case a.leave.request().Force:
			a.leave.leftBehind(a.nodeLeft())
			return nil
		}
		return &api.Error{Message: "the node object could not be deleted: " + err.Error(),
			Hint: fmt.Sprintf("try again, or leave with --force and run `kubectl delete node %s` elsewhere", a.nodeName())}
	}
}

// nodeLeft is what a person has to do where no server was there to do it.
func (a *agent) nodeLeft() string {
	return fmt.Sprintf("the node object: `kubectl delete node %s`", a.nodeName())
}

func countPods(n int) string {
	if n == 1 {
		return "1 pod"
	}
	return fmt.Sprintf("%d pods", n)
}

// firstPods names a few.
func firstPods(pods []kube.Pod) string {
	const few = 3
	var names []string
	for _, p := range pods[:min(few, len(pods))] {
		names = append(names, p.String())
	}
	if len(pods) > few {
		names = append(names, "...")
	}
	return strings.Join(names, ", ")
}

// forget leaves the node without a cluster of its own; what it voted stays.
func (a *agent) forget() error {
	if driver, _ := a.voting.get(); driver != nil {
		if err := driver.Pin(genesis.UID{}); err != nil {
			return err
		}
	}
	return a.store.Forget()
}
