package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/role"
	"github.com/kairos-io/kairos/agent/seed"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/rights"
)

// reporter remembers what was told, so that only changes are told again. It
// decides nothing.
type reporter struct {
	log  *slog.Logger
	set  health.Set
	last atomic.Pointer[agentapi.Status]
	told string // status line
	sent api.Cluster
	sure bool // sent has reached the overlay
	// Failures that were logged, by step: of the last turn, and of this one.
	failed, failing map[string]string

	// Of this turn's observation.
	diskProblem error
	specProblem error // why it is not known which k3s is wanted
	exited      k3s.Status
	pid         uint32 // of k3s, 0 when it does not run
	nodeReady   bool
}

// line is what the service manager shows.
func (r *reporter) line() string {
	s := r.last.Load()
	switch {
	case s == nil:
		return "starting"
	case s.Cluster.Phase == rights.PhaseDisabled && s.Cluster.Waiting == "":
		return "cluster.enabled is false: this machine is on the network only"
	case s.Cluster.Waiting != "":
		return s.Cluster.Phase + ": " + s.Cluster.Waiting
	case s.Cluster.Role != "":
		return fmt.Sprintf("%s of cluster %s", s.Cluster.Role, s.Cluster.NetworkID)
	}
	return s.Cluster.Phase
}

// logFailure logs a failed step when it begins to fail or fails differently,
// not in every turn.
func (r *reporter) logFailure(step string, err error) {
	if r.failing == nil {
		r.failing = map[string]string{}
	}
	text := err.Error()
	r.failing[step] = text
	if r.failed[step] == text {
		return
	}
	var pending *health.Pending
	if errors.As(err, &pending) {
		r.log.Info("waiting", "reason", text)
		return
	}
	r.log.Warn("a step failed", "step", step, "err", err)
}

// endTurn forgets the steps that did not fail in this turn.
func (r *reporter) endTurn() { r.failed, r.failing = r.failing, nil }

// publish tells everybody who asks: the overlay's API, the agent's socket, the journal.
func (a *agent) publish(ctx context.Context, f role.Facts, out outcome) {
	if !f.OverlayUp {
		out.raise(health.Condition{Severity: health.Error, Text: "the overlay does not answer",
			Hint: "see `systemctl status kairos-overlay`"}, health.CodeOverlayDown)
	}
	a.raiseConfiguration(&out)
	if err := a.report.diskProblem; err != nil {
		out.raise(health.Condition{Severity: health.Error, Text: err.Error()}, health.CodeNeedsOperator)
	}
	if f.ClusterEnabled {
		a.raiseSeeding(&out)
	}
	if err := a.report.specProblem; err != nil && f.K3s.Running && f.OverlayUp {
		out.raise(health.Condition{Severity: health.Warning, Text: "k3s goes on as it was: " + err.Error(), Hint: "check k3s.image"}, health.CodeImage)
	}
	told := slices.ContainsFunc(out.conditions, func(c health.Condition) bool { return c.Code == health.CodeK3sFailing })
	if n := a.restarts.Fails; n > 1 && !told { // it runs again at the moment
		out.raise(health.Condition{Severity: health.Warning, Text: fmt.Sprintf("k3s does not stay up: %d ends in a row", n),
			Hint: "see " + a.logFile()}, health.CodeK3sFailing)
	}
	if a.report.set.Replace(time.Now(), out.conditions...) {
		for _, c := range a.report.set.List() {
			a.log.Info("condition", "code", c.Code, "severity", string(c.Severity), "text", c.Text, "hint", c.Hint)
		}
	}
	doc := a.document(f, out)
	a.report.last.Store(&agentapi.Status{
		Cluster: doc, K3sRunning: f.K3s.Running, Ready: f.K3s.Ready && a.report.nodeReady, Conditions: a.report.set.List(),
	})
	if !f.OverlayUp {
		a.report.sure = false
		return
	}
	if a.report.sure && sameCluster(doc, a.report.sent) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := a.overlay.PutCluster(ctx, doc); err != nil {
		a.report.logFailure("tell the overlay about the cluster", err)
		return
	}
	a.report.sent, a.report.sure = doc, true
}

// raiseSeeding adds the condition for images that are missing.
func (a *agent) raiseSeeding(out *outcome) {
	_, err := a.seeder.State()
	if err == nil || errors.Is(err, k3s.ErrNoRuntime) { // told by whoever needs containerd first
		return
	}
	c := health.Condition{Severity: health.Warning, Text: "images that came with the network: " + oneLine(err),
		Hint: "pods that need them wait, unless a registry has them"}
	if errors.Is(err, seed.ErrDisagree) {
		c.Hint = "bake the same image into all OS images, or name it by its digest"
	}
	out.raise(c, health.CodePodImages)
}

// oneLine is the first of several errors, and how many there are.
func oneLine(err error) string {
	first, more, _ := strings.Cut(err.Error(), "\n")
	if more == "" {
		return first
	}
	return fmt.Sprintf("%s (and %d more)", first, strings.Count(more, "\n")+1)
}

func sameCluster(a, b api.Cluster) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// document is the cluster as this node knows it.
func (a *agent) document(f role.Facts, out outcome) api.Cluster {
	if f.Leaving || !f.ClusterEnabled {
		c := api.Cluster{NetworkID: a.cfg.NetworkID, Phase: rights.PhaseDisabled, Waiting: out.waiting}
		if f.Leaving {
			c.Phase = rights.PhaseLeaving
		}
		return c
	}
	st := a.store.State()
	c := api.Cluster{
		NetworkID: a.cfg.NetworkID, UID: st.ClusterUID, Epoch: st.Epoch, Phase: phaseName(st.Phase),
		Role: string(st.Role), Servers: st.Servers, Waiting: out.waiting,
	}
	for _, s := range f.Servers {
		if s.UID == st.ClusterUID && c.Endpoint == "" && (len(st.Servers) == 0 || slices.Contains(st.Servers, s.ID)) {
			c.Endpoint = "https://" + s.Endpoint
		}
	}
	if st.Role == store.Server && f.K3s.Ready && c.Endpoint == "" {
		c.Endpoint = "https://" + netip.AddrPortFrom(a.world.get().address(), k3s.APIPort).String()
	}
	if f.Conflict != nil {
		c.Conflict = fmt.Sprintf("clusters %s and %s both claim this network_id", f.Conflict.Own, f.Conflict.Rival)
	}
	if c.Waiting == "" && f.K3s.Running && !f.K3s.Ready {
		c.Waiting = "waiting for k3s to answer"
	}
	if c.Waiting == "" && f.K3s.Ready && !a.report.nodeReady {
		c.Waiting = "waiting for Kubernetes to call this node ready"
	}
	return c
}

func phaseName(p store.Phase) string {
	if p == store.Idle {
		return "forming"
	}
	return string(p)
}
