package nspawn

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kairos-io/kairos/agent"
	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/tests/lab/cluster"
)

// agentOf is the agent of a machine, from outside.
func (r *rig) agentOf(machine string) *api.Client {
	r.Helper()
	root, err := r.machine(machine).Root()
	if err != nil {
		r.Fatal(err)
	}
	return api.NewClient(root + "/run/kairos/agent/agent.sock")
}

// testBootCheck: every machine was found good, by a check that waited for it.
func (r *rig) testBootCheck() {
	for _, m := range r.Lab.Machines() {
		r.eventually(time.Minute, "the boot of "+m.Name()+" is judged", func() error {
			if state := r.exec(m.Name(), "systemctl", "show", "-P", "ActiveState", "kairos-boot-check"); strings.TrimSpace(state) != "active" {
				return fmt.Errorf("the check is %s", state)
			}
			return nil
		})
		said := r.exec(m.Name(), "journalctl", "-b", "-o", "cat", "-u", "kairos-boot-check")
		if !strings.Contains(said, "boot check: good: the overlay and the agent are well") {
			r.Errorf("the boot check of %s said:\n%s", m.Name(), said)
		}
		console, err := os.ReadFile(m.ConsoleFile())
		if err != nil || strings.Contains(string(console), "boot check: ") {
			r.Errorf("it is written over the login prompt on the console of %s: %v", m.Name(), err)
		}
	}
}

// testBadBoot: what systemd does of a check that cannot even be started. The
// reboot itself is left out: this machine's firmware counts no boots.
func (r *rig) testBadBoot() {
	machine := r.worker()
	r.write(machine, "/run/systemd/system/mnt.mount", "[Unit]\nDefaultDependencies=no\n[Mount]\nWhat=none\nWhere=/mnt\nType=nosuchfs\n")
	const dropIn = "/run/systemd/system/kairos-boot-check.service.d/bad.conf"
	for what, setting := range map[string]string{
		"the program does not run": "[Service]\nExecStart=\nExecStart=/nonexistent\n",
		"its mount fails":          "[Unit]\nRequires=mnt.mount\nAfter=mnt.mount\n",
	} {
		r.write(machine, dropIn, setting)
		r.exec(machine, "sh", "-c", "systemctl daemon-reload && systemctl stop kairos-boot-check && rm -f /run/kairos/boot-good && ! systemctl start kairos-boot-check")
		r.eventually(time.Minute, "the reboot is considered where "+what, func() error {
			said := r.exec(machine, "journalctl", "-b", "-o", "cat", "-u", "kairos-boot-failed")
			if !strings.Contains(said, "unmet condition check ConditionPathExists=/sys/firmware/efi/efivars/LoaderBootCountPath-") {
				return fmt.Errorf("systemd said: %q", said)
			}
			return nil
		})
		r.exec(machine, "sh", "-c", "rm "+dropIn+" && journalctl --rotate && journalctl --vacuum-time=1s -q")
	}
	r.exec(machine, "sh", "-c", "systemctl daemon-reload && systemctl reset-failed && systemctl start kairos-boot-check")
}

// write puts a file onto a machine.
func (r *rig) write(machine, path, text string) {
	r.Helper()
	root, err := r.machine(machine).Root()
	if err != nil {
		r.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(root+path), 0o755); err != nil {
		r.Fatal(err)
	}
	if err := os.WriteFile(root+path, []byte(text), 0o644); err != nil {
		r.Fatal(err)
	}
}

// testUpgradeLock: the lock is a Lease that people can see.
func (r *rig) testUpgradeLock() {
	const holder = "jsonpath={.spec.holderIdentity}"
	server := r.agentOf(r.server())
	defer server.CloseIdle()
	lock := api.Exchange{Method: http.MethodPost, Path: "/control/v1/lock", In: agent.LockRequest{Reason: "upgrade to v2"}}
	if err := server.Call(r.ctx, lock); err != nil {
		r.Fatal(err)
	}
	if got := r.kubectl("-n", "kube-system", "get", "lease", "kairos-upgrade", "-o", holder); got != r.node(r.server()) {
		r.Errorf("the lock is held by %q", got)
	}
	r.kubectl("-n", "kube-system", "patch", "lease", "kairos-upgrade", "--type=merge", "-p", `{"spec":{"holderIdentity":"another"}}`)
	var refused *api.Error
	if err := server.Call(r.ctx, lock); !errors.As(err, &refused) || refused.Status != http.StatusConflict || !strings.HasPrefix(refused.Message, "another holds the upgrade lock") {
		r.Errorf("another's lock: %v", err)
	}
	r.kubectl("-n", "kube-system", "patch", "lease", "kairos-upgrade", "--type=merge", "-p", fmt.Sprintf(`{"spec":{"holderIdentity":%q}}`, r.node(r.server())))
	// The boot check gives it back.
	r.exec(r.server(), "systemctl", "restart", "kairos-boot-check")
	if got := r.kubectl("-n", "kube-system", "get", "lease", "kairos-upgrade", "-o", holder); got != "" {
		r.Errorf("after the boot check the lock is held by %q", got)
	}
}

const budget = `
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: guard}
spec: {minAvailable: 1, selector: {matchLabels: {app: echo, guard: "yes"}}}
`

// testLeave: the fourth machine leaves, as its pods' budget allows, and comes
// back with its next boot, since nothing was wiped.
func (r *rig) testLeave() {
	const machine = "node4"
	node := r.node(machine)
	manifest := filepath.Join(r.Lab.Dir(), "guarded.yaml")
	guarded := strings.Replace(r.pod("guarded", machine), "{app: echo}", `{app: echo, guard: "yes"}`, 1)
	if err := os.WriteFile(manifest, []byte(guarded+budget), 0o600); err != nil {
		r.Fatal(err)
	}
	r.kubectl("apply", "-f", manifest)
	r.kubectl("wait", "--for=condition=Ready", "pod/guarded", "--timeout=90s")

	st := r.leave(machine, agentapi.LeaveRequest{DrainSeconds: 5})
	if st.Error == nil || !strings.Contains(st.Error.Message, "default/guarded (its disruption budget does not allow it yet)") {
		r.Fatalf("against the budget: %+v, %v", st, st.Error)
	}
	if got := r.kubectl("get", "node", node, "-o", "jsonpath={.spec.unschedulable}"); got != "" && got != "false" {
		r.Errorf("the node that stays takes no pods: %q", got)
	}
	if st = r.leave(machine, agentapi.LeaveRequest{DrainSeconds: 5, Force: true}); !st.Done || len(st.Left) > 0 {
		r.Fatalf("by force: %+v, %v", st, st.Error)
	}
	if out := r.kubectl("get", "nodes,pods", "-o", "name"); strings.Contains(out, node) || strings.Contains(out, "guarded") {
		r.Errorf("the cluster still has\n%s", out)
	}
	if out := r.exec(machine, "ctr", "-n", "kairos", "tasks", "ls", "-q"); out != "" {
		r.Errorf("k3s still runs: %q", out)
	}
	if v := cluster.Look(r.ctx, r.machine(machine)); v.Role != "" {
		r.Errorf("it still says that it is a %s", v.Role)
	}
	if err := r.machine(machine).Reboot(r.ctx); err != nil {
		r.Fatal(err)
	}
	r.await()
	r.checkNodes()
}

func (r *rig) leave(machine string, req agentapi.LeaveRequest) (st agentapi.LeaveStatus) {
	r.Helper()
	c := r.agentOf(machine)
	defer c.CloseIdle()
	x := api.Exchange{Method: http.MethodPost, Path: "/control/v1/leave", In: req, Out: &st}
	r.eventually(3*time.Minute, machine+" has left or failed to", func() error {
		st = agentapi.LeaveStatus{}
		if err := c.Call(r.ctx, x); err != nil {
			return err
		}
		x.Method, x.In = http.MethodGet, nil
		if !st.Done && st.Error == nil {
			return errors.New(st.Step)
		}
		return nil
	})
	return st
}
