package nspawn

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kairos-io/kairos/tests/lab/cluster"
)

// testAddons: the cluster's DNS and its metrics, as k3s deploys them: pods on every machine
// know services, the mesh and, through the machine, the world; and people what is used.
func (r *rig) testAddons() {
	for _, what := range []string{"coredns", "metrics-server"} {
		r.kubectl("-n", "kube-system", "wait", "--for=condition=Available", "--timeout=180s", "deployment/"+what)
	}
	service := r.kubectl("get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}")
	worker := cluster.Look(r.ctx, r.machine(r.worker()))
	for _, m := range r.Lab.Machines() {
		for name, want := range map[string]string{
			"echo":                                    service,
			"echo.default.svc.cluster.local":          service,
			worker.Name + ".kairos.internal":          worker.Address,
			"kubernetes.default.svc":                  "10.43.0.1",
			"kube-dns.kube-system.svc.cluster.local.": "10.43.0.10",
		} {
			r.eventually(time.Minute, "a pod on "+m.Name()+" knows "+name, func() error {
				got, err := cluster.Kubectl(r.ctx, r.machine(r.server()), "exec", "on-"+m.Name(), "--", "/echo", "lookup", name)
				if err == nil && !slices.Contains(strings.Fields(got), want) {
					err = fmt.Errorf("the answer is %q, want %s", got, want)
				}
				return err
			})
		}
	}
	r.eventually(2*time.Minute, "there are metrics of every node", func() error {
		out, err := cluster.Kubectl(r.ctx, r.machine(r.server()), "top", "nodes", "--no-headers")
		if err != nil {
			return err
		}
		for _, m := range r.Lab.Machines() {
			if !strings.Contains(out, r.node(m.Name())) || strings.Contains(out, "<unknown>") {
				return fmt.Errorf("kubectl top says\n%s", out)
			}
		}
		return nil
	})
}
