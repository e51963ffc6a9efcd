// Package nspawn tests the whole: the operating system image of this repository
// with its own systemd and units, on machines that find each other, agree on a
// server and run a real k3s over the overlay. It needs root and some minutes.
package nspawn

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/cluster"
	"github.com/kairos-io/kairos/tests/lab/labtest"
)

// toReady is how long machines may take from their start until all of them are
// ready nodes, on a busy machine of two cores.
const toReady = 6 * time.Minute

// rig is a running cluster with what the tests note about it.
type rig struct {
	*testing.T
	*cluster.Cluster
	ctx context.Context
}

// at is the rig inside a subtest.
func (r *rig) at(t *testing.T) *rig { return &rig{T: t, Cluster: r.Cluster, ctx: t.Context()} }

// built is what machines are started from, built once for all tests.
var built = sync.OnceValues(func() (cluster.Built, error) {
	root, err := run.RepoRoot()
	if err != nil {
		return cluster.Built{}, err
	}
	return cluster.Build(context.Background(), root, os.Stderr)
})

// emptyRig is a rig without machines.
func emptyRig(t *testing.T) *rig {
	t.Helper()
	if testing.Short() {
		t.Skip("boots machines; not with -short")
	}
	b, err := built()
	if err != nil {
		t.Fatal(err)
	}
	ctx, l := labtest.New(t, lab.Options{})
	c, err := cluster.New(ctx, l, b, 3)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, Cluster: c, ctx: ctx}
	showLogs(t, l, "journalctl -b --no-pager -o short-monotonic -u 'kairos*' -u containerd | grep -v ImageUpdate | tail -n 60; tail -n 40 /var/log/kairos/k3s.log")
	return r
}

// await waits until every machine is a ready node.
func (r *rig) await() []cluster.View {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, toReady)
	defer cancel()
	views, err := r.Await(ctx, r.Output())
	if err != nil {
		r.Fatal(err)
	}
	return views
}

// showLogs prints at the end of a test that failed what helps to understand it: of
// each machine the units that failed, and what the script prints.
func showLogs(t *testing.T, l *lab.Lab, script string) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, m := range l.Machines() {
			out, err := m.Exec(ctx, "sh", "-c", "systemctl --failed --no-pager --no-legend; "+script)
			t.Logf("%s: %v\n%s", m.Name(), err, out)
		}
	})
}

func (r *rig) exec(machine string, args ...string) string {
	r.Helper()
	out, err := r.machine(machine).Exec(r.ctx, args...)
	if err != nil {
		r.Fatal(err)
	}
	return out
}

func (r *rig) machine(name string) *lab.Machine {
	r.Helper()
	m, err := r.Lab.Machine(name)
	if err != nil {
		r.Fatal(err)
	}
	return m
}

// server and worker are the names of a machine of that role.
func (r *rig) server() string { r.Helper(); return r.withRole("server") }
func (r *rig) worker() string { r.Helper(); return r.withRole("worker") }

func (r *rig) withRole(role string) string {
	r.Helper()
	for _, m := range r.Lab.Machines() {
		if cluster.Look(r.ctx, m).Role == role {
			return m.Name()
		}
	}
	r.Fatalf("no machine is a %s", role)
	return ""
}

// node is a machine's name in Kubernetes.
func (r *rig) node(machine string) string {
	r.Helper()
	v := cluster.Look(r.ctx, r.machine(machine))
	if v.Name == "" {
		r.Fatalf("%s does not say its name: %s", machine, v.Text)
	}
	return v.Name
}

// kubectl runs kubectl at the server.
func (r *rig) kubectl(args ...string) string {
	r.Helper()
	out, err := cluster.Kubectl(r.ctx, r.machine(r.server()), args...)
	if err != nil {
		r.Fatal(err)
	}
	return out
}

// checkNodes waits until Kubernetes has one Ready node for each machine, with
// one control plane among them.
func (r *rig) checkNodes() {
	r.Helper()
	r.eventually(2*time.Minute, "Kubernetes has the right nodes", func() error {
		server, err := r.Server(r.ctx)
		if err != nil {
			return err
		}
		nodes, err := cluster.Nodes(r.ctx, server, "")
		if err != nil {
			return err
		}
		control := 0
		for _, m := range r.Lab.Machines() {
			if m.Kind() != lab.KindNspawn {
				continue
			}
			state := nodes[cluster.Look(r.ctx, m).Name]
			if !strings.HasPrefix(state, "Ready ") {
				return fmt.Errorf("%s is %q among %v", m.Name(), state, nodes)
			}
			if strings.Contains(state, "control-plane") {
				control++
			}
		}
		if control != 1 {
			return fmt.Errorf("%d control planes: %v", control, nodes)
		}
		return nil
	})
}

func (r *rig) eventually(d time.Duration, what string, f func() error) {
	r.Helper()
	labtest.Eventually(r.T, d, what, f)
}

func TestMain(m *testing.M) {
	if err := lab.RemoveOrphans(context.Background(), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
