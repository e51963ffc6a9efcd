package agent

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/role"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
)

var discard = slog.New(slog.DiscardHandler)

// The one line that `systemctl status` shows.
func TestLine(t *testing.T) {
	for _, tc := range []struct {
		name    string
		cluster *api.Cluster
		want    string
	}{
		{"nothing yet", nil, "starting"},
		{"waits", &api.Cluster{Phase: "decided", Waiting: "getting the k3s image"}, "decided: getting the k3s image"},
		{"works", &api.Cluster{NetworkID: "home", Phase: "running", Role: "worker"}, "worker of cluster home"},
		{"no role yet", &api.Cluster{Phase: "forming"}, "forming"},
		{"disabled", &api.Cluster{Phase: "disabled"}, "cluster.enabled is false: this machine is on the network only"},
		{"disabled, still stopping", &api.Cluster{Phase: "disabled", Waiting: "waiting for containerd"}, "disabled: waiting for containerd"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var r reporter
			if tc.cluster != nil {
				r.last.Store(&agentapi.Status{Cluster: *tc.cluster})
			}
			if got := r.line(); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// A failure is logged when it begins, changes or comes back; not in every turn.
func TestLogFailure(t *testing.T) {
	var buf bytes.Buffer
	r := reporter{log: slog.New(slog.NewTextHandler(&buf, nil))}
	a, b, wait := errors.New("a"), errors.New("b"), &health.Pending{Reason: "soon", Detail: "1 of 9"}
	for i, turn := range []struct {
		errs map[string]error
		want int // lines
	}{
		{map[string]error{"x": a}, 1},
		{map[string]error{"x": a}, 0},
		{map[string]error{"x": a, "y": a}, 1}, // two that alternate must not wake each other
		{map[string]error{"x": a, "y": a}, 0},
		{map[string]error{"x": b}, 1},
		{nil, 0},
		{map[string]error{"x": b}, 1}, // mended in between
		{map[string]error{"x": fmt.Errorf("step: %w", wait)}, 1},
		{map[string]error{"x": fmt.Errorf("step: %w", wait)}, 0},
	} {
		buf.Reset()
		for step, err := range turn.errs {
			r.logFailure(step, err)
		}
		r.endTurn()
		if got := strings.Count(buf.String(), "\n"); got != turn.want {
			t.Errorf("turn %d: %d lines, want %d: %s", i, got, turn.want, buf.String())
		}
		if strings.Contains(buf.String(), "1 of 9") {
			t.Errorf("turn %d logs a detail: %s", i, buf.String())
		}
	}
}

// What a failed step is told as.
func TestOutcomeFail(t *testing.T) {
	cause := errors.New("cause")
	for _, tc := range []struct {
		name          string
		step          role.Action
		err           error
		code, waiting string
		severity      health.Severity
	}{
		{"under way", role.PrepareImage{}, &health.Pending{Reason: "getting it", Detail: "3 of 9 MB"}, health.CodeWaiting, "getting it: 3 of 9 MB", health.Info},
		{"knows its code", role.PrepareImage{}, &health.Problem{Code: health.CodeK3sFailing, Err: cause, Detail: "again in 3s"}, health.CodeK3sFailing, "cause: again in 3s", health.Error},
		{"save", role.Save{}, cause, health.CodeStateUnusable, "cause", health.Error},
		{"image", role.PrepareImage{}, cause, health.CodeImage, "cause", health.Error},
		{"server", role.StartServer{}, cause, health.CodeK3sFailing, "cause", health.Error},
		{"worker", role.StartWorker{}, cause, health.CodeK3sFailing, "cause", health.Error},
		{"marker", role.WriteMarker{}, cause, health.CodeK3sFailing, "cause", health.Error},
		{"stop", role.Stop{}, cause, health.CodeK3sFailing, "cause", health.Error},
		{"network", role.ApplyNetwork{}, cause, health.CodePodNetwork, "cause", health.Error},
		{"pin", role.Pin{}, cause, health.CodeOverlayDown, "cause", health.Error},
		{"publish", role.Publish{}, cause, health.CodeOverlayDown, "cause", health.Error},
		{"withdraw", role.WithdrawNetwork{}, cause, health.CodeOverlayDown, "cause", health.Error},
		{"join", role.FetchJoin{}, cause, health.CodeServerLost, "cause", health.Error},
		{"anything else", role.ProposeStarted{}, cause, health.CodeWaiting, "cause", health.Error},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var o outcome
			o.fail(tc.step, fmt.Errorf("%w", tc.err))
			c := o.conditions[0]
			if c.Code != tc.code || c.Severity != tc.severity || o.waiting != tc.waiting {
				t.Errorf("got %+v, waiting %q", c, o.waiting)
			}
		})
	}
}

// After a step that is not done nothing more is done, and everything is still told.
func TestActStopsAtTheFirstFailure(t *testing.T) {
	b := newBench(t, store.Server, nil)
	b.look(t)
	out := b.act(t.Context(), role.Facts{}, []role.Action{
		role.Note{Code: health.CodeConflict, Reason: "two clusters"},
		role.StartWorker{UID: "another"}, // there is no join information for it
		role.Stop{Reason: "must not be reached"},
		role.Wait{Reason: "waiting for k3s"},
		role.Ask{Reason: "what now?"},
	})
	var codes []string
	for _, c := range out.conditions {
		codes = append(codes, c.Code)
	}
	if got := strings.Join(codes, " "); got != "Conflict Waiting Waiting NeedsOperator" {
		t.Errorf("told %s", got)
	}
	if !out.busy || out.again || b.machine.runtime.stops != 0 {
		t.Errorf("outcome %+v, %d stops", out, b.machine.runtime.stops)
	}
	if out.waiting != "join information from the server" {
		t.Errorf("waits for %q", out.waiting)
	}
}

func TestActRefusesWhatItDoesNotKnow(t *testing.T) {
	b := newBench(t, store.Server, nil)
	b.look(t)
	out := b.act(t.Context(), role.Facts{}, []role.Action{nil})
	if len(out.conditions) != 1 || !strings.Contains(out.conditions[0].Text, "a step that this version does not know") {
		t.Errorf("got %+v", out.conditions)
	}
}

// The cluster as GET /api/v1/cluster shows it.
func TestDocument(t *testing.T) {
	b := newBench(t, store.Server, nil)
	b.settled(t)
	facts := b.observe(t.Context())
	for _, tc := range []struct {
		name string
		edit func(*role.Facts)
		out  outcome
		want string // phase role endpoint waiting conflict
	}{
		{"works", nil, outcome{}, "running|server|https://127.0.0.2:6443||"},
		{"waits", nil, outcome{waiting: "something"}, "running|server|https://127.0.0.2:6443|something|"},
		{"k3s does not answer", func(f *role.Facts) { f.K3s.Ready = false }, outcome{}, "running|server|https://127.0.0.2:6443|waiting for k3s to answer|"},
		{"two clusters", func(f *role.Facts) { f.Conflict = &role.Conflict{Own: "a", Rival: "b"} }, outcome{},
			"running|server|https://127.0.0.2:6443||clusters a and b both claim this network_id"},
		{"disabled", func(f *role.Facts) { f.ClusterEnabled = false }, outcome{}, "disabled||||"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := facts
			if tc.edit != nil {
				tc.edit(&f)
			}
			d := b.document(f, tc.out)
			if got := strings.Join([]string{d.Phase, d.Role, d.Endpoint, d.Waiting, d.Conflict}, "|"); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
	b.report.nodeReady = false
	if d := b.document(facts, outcome{}); d.Waiting != "waiting for Kubernetes to call this node ready" {
		t.Errorf("node not ready: %q", d.Waiting)
	}
}

func TestRolesOfTheContainer(t *testing.T) {
	for in, want := range map[k3s.Role]store.Role{k3s.Server: store.Server, k3s.Agent: store.Worker, "": store.NoRole, "else": store.NoRole} {
		if got := storeRole(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// While the server is away, that is what a worker waits for, whatever else it lacks because of it.
func TestActNamesTheLostServer(t *testing.T) {
	b := newBench(t, store.Worker, nil)
	b.look(t)
	out := b.act(t.Context(), role.Facts{}, []role.Action{
		role.Note{Code: health.CodeServerLost, Reason: "the server to be back"},
		role.Wait{Reason: "waiting for k3s"},
	})
	if out.waiting != "the server to be back" {
		t.Errorf("waits for %q", out.waiting)
	}
}
