package departure

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/kube"
	"github.com/kairos-io/kairos/overlay/api"
)

// Ask takes a request, and begins to leave or goes on with it until life ends; see
// Status. An error means that nothing was begun or changed.
func (d *Departure) Ask(life context.Context, req agentapi.LeaveRequest) error {
	m, err := d.Node.Membership()
	if err == nil {
		err = d.mayLeave(m, req)
	}
	if err != nil {
		return err
	}
	return d.run(req, func() error { return d.try(life) })
}

// try is one attempt of the operation that is under way.
func (d *Departure) try(life context.Context) error {
	id := d.Status().ID
	m, err := d.Node.Membership()
	if err == nil {
		d.Log.Warn("leaving the cluster, as a person asked", "operation", id)
		err = d.leave(life, m)
	}
	if err != nil {
		d.Log.Error("leaving the cluster failed", "operation", id, "err", err)
	}
	return err
}

// mayLeave refuses what a person has to know first.
func (d *Departure) mayLeave(m Membership, req agentapi.LeaveRequest) error {
	if !m.Server {
		return nil
	}
	if req.KeepIdentity {
		return &api.Error{
			Message: "the agreement names this machine's key as the cluster's server: a server whose data is gone cannot come back under it",
			Hint:    "leave out --keep-identity", Status: http.StatusConflict,
		}
	}
	if m.Alone && req.EndCluster != d.NetworkID {
		return &api.Error{
			Message: fmt.Sprintf("this machine is the only server of cluster %q: when it leaves, the cluster and all that Kubernetes knows ends for good", d.NetworkID),
			Hint:    fmt.Sprintf("if that is meant, say so: --end-cluster %s", d.NetworkID), Status: http.StatusConflict,
		}
	}
	return nil
}

// leave empties this node, stops k3s, deletes the node object and forgets
// the role. It can be asked for again after it failed: what is done is done. The
// request is read where it decides, because a person may have changed it by then.
func (d *Departure) leave(ctx context.Context, m Membership) error {
	others := func() bool { return m.UID != "" && d.request().EndCluster == "" } // somebody is left who cares
	reached := false
	if others() && !d.nodeGone() {
		var err error
		if reached, err = d.drain(ctx, m); err != nil {
			return err
		}
	}
	d.step("stopping k3s, and withdrawing the role and the routes")
	if err := d.begin(); err != nil {
		return err
	}
	if err := d.waitRetired(ctx); err != nil && (ctx.Err() != nil || !d.request().Force) {
		return err
	}
	switch {
	case d.nodeGone():
	case reached:
		if err := d.removeNode(ctx, m); err != nil {
			return err
		}
	case others():
		d.leftBehind(d.nodeLeft())
	}
	if d.request().KeepIdentity {
		if err := d.Node.Forget(); err != nil {
			return fmt.Errorf("forget the role: %w", err)
		}
		d.keep(d.note(func(o *operation) { o.Forgotten = true }))
	}
	d.Log.Warn("this node has left its cluster", "cluster", m.UID)
	return nil
}

// keep tells of an operation that could not be written down: it goes on
// all the same, and only another agent in this boot would not know of it.
func (d *Departure) keep(err error) {
	if err != nil {
		d.Log.Warn("how far leaving is could not be written down", "err", err)
	}
}

// drain goes round after round until no pod is left that has to go. reached is
// false where, by force, it went on without a server.
func (d *Departure) drain(ctx context.Context, m Membership) (reached bool, err error) {
	began := time.Now()
	answered := began
	var forced time.Time // when the first forced round was answered
	for {
		r := d.request()
		force := r.Force && time.Since(began) > r.DrainLimit()
		p, err := d.Node.AskServer(ctx, m, drainStep(force))
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case r.EndCluster != "":
			return false, nil
		case err == nil && (p.Gone || len(p.Left) == 0):
			return true, nil
		case err == nil:
			answered = time.Now()
			d.step("waiting for %s to end: %s", countPods(len(p.Left)), firstPods(p.Left))
			if time.Since(began) > r.DrainLimit() && !r.Force {
				return true, d.stay(ctx, p.Left, m)
			}
			if force && forced.IsZero() {
				forced = answered
			}
			if force && time.Since(forced) > d.Times.Forced {
				d.leftBehind("pods that do not end: " + firstPods(p.Left))
				return true, nil
			}
		case refusedForGood(err):
			return true, err
		case time.Since(answered) > d.Times.Missing && r.Force:
			return false, nil
		case time.Since(answered) > d.Times.Missing:
			return false, &api.Error{Message: "the cluster's server cannot be asked to empty this node: " + err.Error(),
				Hint: "see `kairos status`; --force leaves without it"}
		default:
			d.step("asking the cluster's server to empty this node: %s", err)
		}
		pause(ctx, d.Times.Pace)
	}
}

func drainStep(force bool) string {
	if force {
		return Force
	}
	return Drain
}

// stay gives up leaving: the node takes pods again.
func (d *Departure) stay(ctx context.Context, left []kube.Pod, m Membership) error {
	e := &api.Error{
		Message: fmt.Sprintf("after %s there still is %s here: %s", d.request().DrainLimit(), countPods(len(left)), firstPods(left)),
		Hint:    "see to them, or leave with --force, which does not respect disruption budgets",
	}
	for began := time.Now(); ; pause(ctx, d.Times.Pace) {
		_, err := d.Node.AskServer(ctx, m, Stay)
		if err == nil {
			return e
		}
		if ctx.Err() != nil || refusedForGood(err) || time.Since(began) > d.Times.Missing {
			break
		}
	}
	e.Hint += fmt.Sprintf("; this node takes no new pods: `kubectl uncordon %s`", d.Node.Name())
	return e
}

// waitRetired waits for the loop, which owns k3s.
func (d *Departure) waitRetired(ctx context.Context) error {
	t := time.NewTimer(d.Times.Retire)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.retired:
		return nil
	case <-t.C:
		why := d.Node.Waiting()
		return &api.Error{Message: strings.TrimSuffix("k3s could not be stopped: "+why, ": "), Hint: "see `kairos status` and `systemctl status containerd`"}
	}
}

// removeNode deletes the node object, as soon as a server does it.
func (d *Departure) removeNode(ctx context.Context, m Membership) error {
	d.step("deleting this node from the cluster")
	began := time.Now()
	for {
		_, err := d.Node.AskServer(ctx, m, Remove)
		switch {
		case err == nil:
			d.keep(d.note(func(o *operation) { o.NodeGone = true }))
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Since(began) < d.Times.Remove && !refusedForGood(err):
			pause(ctx, d.Times.Pace)
			continue
		case d.request().Force:
			d.leftBehind(d.nodeLeft())
			return nil
		}
		return &api.Error{Message: "the node object could not be deleted: " + err.Error(),
			Hint: fmt.Sprintf("try again, or leave with --force and run `kubectl delete node %s` elsewhere", d.Node.Name())}
	}
}

// nodeLeft is what a person has to do where no server was there to do it.
func (d *Departure) nodeLeft() string {
	return fmt.Sprintf("the node object: `kubectl delete node %s`", d.Node.Name())
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

// pause waits for t or the end of ctx.
func pause(ctx context.Context, t time.Duration) {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
