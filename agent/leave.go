package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
	Asked bool       `json:"asked"`                 // somebody asked this process to leave
	Step  string     `json:"step"`                  // one line: what is being done
	Done  bool       `json:"done"`                  // this node belongs to no cluster any more
	Left  []string   `json:"left_behind,omitempty"` // what could not be cleaned up elsewhere
	Error *api.Error `json:"error,omitempty"`       // it failed; ask again to go on
}

// leaving is the one attempt to leave. It is safe for concurrent use.
type leaving struct {
	file  string
	times leaveTimes

	mu      sync.Mutex
	busy    bool
	closed  bool // the agent ends: nothing is begun any more
	tasks   sync.WaitGroup
	status  LeaveStatus
	changed chan struct{} // closed when the loop should look again
	retired chan struct{} // closed once the loop has left Kubernetes
}

func newLeaving(file string) *leaving {
	if file == "" {
		file = DefaultLeftFile
	}
	return &leaving{file: file, times: patientTimes, changed: make(chan struct{}), retired: make(chan struct{})}
}

// asked reports whether this machine is to stay out of its cluster. A file that
// cannot be looked at is none: without one the machine is a member.
func (l *leaving) asked() bool {
	_, err := os.Stat(l.file)
	return err == nil
}

// begin marks the machine as leaving, until the next boot, and wakes the loop.
func (l *leaving) begin() error {
	if err := os.MkdirAll(filepath.Dir(l.file), 0o755); err != nil {
		return fmt.Errorf("mark this machine as leaving: %w", err)
	}
	if err := os.WriteFile(l.file, nil, 0o600); err != nil {
		return fmt.Errorf("mark this machine as leaving: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

// Changed returns a channel that is closed when the loop should look again.
func (l *leaving) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// observe notes what a turn of the loop has seen.
func (l *leaving) observe(f role.Facts) {
	gone := f.K3s.Container == role.Absent || f.K3s.Container == role.Unknown && f.Marker.Presence == role.Absent
	told := !f.OverlayUp || f.Published[api.NotePhase] == phaseLeaving && !f.AppliedPodCIDR.IsValid()
	if !f.Leaving || !gone || !told {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.retired:
	default:
		close(l.retired)
	}
}

// run begins an attempt beside the caller, unless one is under way or has
// succeeded.
func (l *leaving) run(attempt func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy || l.closed || l.status.Done {
		return
	}
	l.busy, l.status = true, LeaveStatus{Asked: true, Step: "beginning to leave"}
	l.tasks.Go(func() { l.end(attempt()) })
}

// wait ends with the attempt, whose context has ended; none is begun any more.
func (l *leaving) wait() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.tasks.Wait()
}

func (l *leaving) edit(f func(*LeaveStatus)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.status)
}

func (l *leaving) step(format string, args ...any) {
	l.edit(func(s *LeaveStatus) { s.Step = fmt.Sprintf(format, args...) })
}

func (l *leaving) leftBehind(what string) {
	l.edit(func(s *LeaveStatus) { s.Left = append(s.Left, what) })
}

func (l *leaving) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy, l.status.Done = false, err == nil
	if err == nil {
		l.status.Step = "left"
		return
	}
	var e *api.Error
	if !errors.As(err, &e) {
		e = &api.Error{Message: err.Error()}
	}
	l.status.Error = e
}

func (l *leaving) get() LeaveStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
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
	a.leave.run(func() error {
		a.log.Warn("leaving the cluster, as a person asked")
		err := a.leaveCluster(a.life, departure{req, m})
		if err != nil {
			a.log.Error("leaving the cluster failed", "err", err)
		}
		return err
	})
	api.WriteJSON(w, http.StatusOK, a.leave.get())
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

// departure is one attempt.
type departure struct {
	LeaveRequest
	membership
}

// leaveCluster empties this node, stops k3s, deletes the node object and forgets
// the role. It can be asked for again after it failed: what is done is done.
func (a *agent) leaveCluster(ctx context.Context, d departure) error {
	others := d.uid != "" && d.EndCluster == "" // somebody is left who cares
	reached := false
	if others {
		var err error
		if reached, err = a.drain(ctx, d); err != nil {
			return err
		}
	}
	a.leave.step("stopping k3s, and withdrawing the role and the routes")
	if err := a.leave.begin(); err != nil {
		return err
	}
	if err := a.waitRetired(ctx); err != nil && !d.Force {
		return err
	}
	switch {
	case reached:
		if err := a.removeNode(ctx, d); err != nil {
			return err
		}
	case others:
		a.leave.leftBehind(a.nodeLeft())
	}
	if d.KeepIdentity {
		if err := a.forget(); err != nil {
			return fmt.Errorf("forget the role: %w", err)
		}
	}
	a.log.Warn("this node has left its cluster", "cluster", d.uid)
	return nil
}

// drain goes round after round until no pod is left that has to go. reached is
// false where, by force, it went on without a server.
func (a *agent) drain(ctx context.Context, d departure) (reached bool, err error) {
	began, times := time.Now(), a.leave.times
	answered := began
	var forced time.Time // when the first forced round was answered
	for {
		force := d.Force && time.Since(began) > d.drainLimit()
		p, err := a.askServer(ctx, d.membership, drainOp(force))
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err == nil && (p.Gone || len(p.Left) == 0):
			return true, nil
		case err == nil:
			answered = time.Now()
			a.leave.step("waiting for %s to end: %s", countPods(len(p.Left)), firstPods(p.Left))
			if time.Since(began) > d.drainLimit() && !d.Force {
				return true, a.stay(ctx, p.Left, d)
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
func (a *agent) stay(ctx context.Context, left []kube.Pod, d departure) error {
	e := &api.Error{
		Message: fmt.Sprintf("after %s there still is %s here: %s", d.drainLimit(), countPods(len(left)), firstPods(left)),
		Hint:    "see to them, or leave with --force, which does not respect disruption budgets",
	}
	for began := time.Now(); ; pause(ctx, a.leave.times.pace) {
		_, err := a.askServer(ctx, d.membership, opStay)
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
func (a *agent) removeNode(ctx context.Context, d departure) error {
	a.leave.step("deleting this node from the cluster")
	began := time.Now()
	for {
		_, err := a.askServer(ctx, d.membership, opRemove)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Since(began) < a.leave.times.remove && !refusedForGood(err):
			pause(ctx, a.leave.times.pace)
			continue
		case d.Force:
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
