package nspawn

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kairos-io/kairos/tests/k3simage"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/cluster"
)

// One cluster goes through its life, at a site without any network but its own; the
// order of the parts matters.
func TestCluster(t *testing.T) {
	r := newSite(t)
	part := func(name string, f func(*rig)) {
		if !t.Failed() {
			t.Run(name, func(t *testing.T) { f(r.at(t)) })
		}
	}
	part("three ready nodes and one control plane", (*rig).checkNodes)
	part("all have the images that one brought", (*rig).checkSeeded)
	part("addresses are the overlay's", (*rig).testAddresses)
	part("units are healthy", (*rig).testUnits)
	part("boots are found good", (*rig).testBootCheck)
	part("pods reach each other", (*rig).testPods)
	part("there is one packet filter", (*rig).testPacketFilter)
	part("k3s' own add-ons", (*rig).testAddons)
	part("pods know the names that the machine knows", (*rig).testNames)
	part("whatever a cluster carries", (*rig).testTraffic)
	part("volumes are the machine's own paths", (*rig).testVolumes)
	part("workers give out no kubeconfig", (*rig).testWorkerKubeconfig)
	part("a killed agent leaves everything running", (*rig).testKillAgent)
	part("a restarted overlay leaves everything running", (*rig).testRestartOverlay)
	part("a node that was deleted comes back", (*rig).testDeletedNode)
	part("a fourth machine joins", (*rig).testFourth)
	part("a worker gives up a system under which it is not ready", (*rig).testNeverReady)
	part("an older containerd, and back", (*rig).testOlderContainerd)
	part("a bridge from a fifth place", (*rig).testBridge)
	part("servers are upgraded one after the other", (*rig).testUpgradeLock)
	part("the next minor version of Kubernetes, and back", (*rig).testMinorVersion)
	part("a machine leaves and comes back", (*rig).testLeave)
	part("a boot check that cannot start", (*rig).testBadBoot)
	part("a bridge in a container of Docker", (*rig).testDocker)
	part("a reboot changes nothing", (*rig).testReboot)
	part("no secret is to be seen", (*rig).testSecrets)
}

func (r *rig) testAddresses() {
	for _, m := range r.Lab.Machines() {
		v := cluster.Look(r.ctx, m)
		got := r.kubectl("get", "node", v.Name, "-o", "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}")
		if got != v.Address {
			r.Errorf("the node of %s has address %s, want the overlay's %s", m.Name(), got, v.Address)
		}
	}
}

func (r *rig) testUnits() {
	for _, m := range r.Lab.Machines() {
		if out := r.exec(m.Name(), "systemctl", "--failed", "--no-legend", "--plain"); out != "" {
			r.Errorf("failed units on %s:\n%s", m.Name(), out)
		}
		restarts := r.exec(m.Name(), "systemctl", "show", "-P", "NRestarts", "kairos-overlay", "kairos-agent")
		if strings.Trim(restarts, "0\n") != "" {
			r.Errorf("restarts of the units on %s: %q", m.Name(), restarts)
		}
	}
}

// pod is a test server on the given machine.
func (r *rig) pod(name, machine string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: echo}}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 1
  containers: [{name: echo, image: %q, imagePullPolicy: Never}]
---
`, name, r.node(machine), k3simage.EchoName)
}

const service = `
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{port: 80, targetPort: 8080}]}
`

func (r *rig) testPods() {
	manifest := filepath.Join(r.Lab.Dir(), "pods.yaml")
	text := r.pod("one", r.server()) + r.pod("two", r.worker())
	wait := []string{"wait", "--for=condition=Ready", "--timeout=90s", "pod/one", "pod/two"}
	for _, m := range r.Lab.Machines() { // wherever an image came from
		text += r.pod("on-"+m.Name(), m.Name())
		wait = append(wait, "pod/on-"+m.Name())
	}
	if err := os.WriteFile(manifest, []byte(text+service), 0o600); err != nil {
		r.Fatal(err)
	}
	r.kubectl("apply", "-f", manifest)
	r.kubectl(wait...)
	r.cutOff() // nothing has come back meanwhile, and has been of use
	for _, c := range []struct{ from, to string }{{"one", "two"}, {"two", "one"}} {
		ip := r.podIP(c.to)
		if got := r.kubectl("exec", c.from, "--", "/echo", "get", "http://"+ip+":8080/"); !strings.Contains(got, "host="+c.to) {
			r.Errorf("%s asks %s: %q", c.from, c.to, got)
		}
		// Larger than any MTU and any queue on the way.
		if got := r.kubectl("exec", c.from, "--", "/echo", "post", "http://"+ip+":8080/", "8388608"); !strings.HasPrefix(got, "8388608 ") {
			r.Errorf("%s sends 8 MiB to %s: %q", c.from, c.to, got)
		}
	}
	// No masquerading between pods: the asker is who it is.
	if got := r.kubectl("exec", "one", "--", "/echo", "get", "http://"+r.podIP("two")+":8080/"); !strings.Contains(got, "client="+r.podIP("one")+":") {
		r.Errorf("the source of a pod's packets was changed: %q", got)
	}
	if logs := r.kubectl("logs", "two"); !strings.Contains(logs, "GET / from "+r.podIP("one")) {
		r.Errorf("logs of two: %q", logs)
	}
	ip := r.kubectl("get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}")
	if got := r.kubectl("exec", "two", "--", "/echo", "get", "http://"+ip+"/"); !strings.Contains(got, "host=") {
		r.Errorf("over the service: %q", got)
	}
}

// testPacketFilter: services are in the kernel's newer packet filter, where the agent's own
// rules are, and nothing is in the older one.
func (r *rig) testPacketFilter() {
	for _, m := range r.Lab.Machines() {
		if rules := r.exec(m.Name(), "nft", "list", "tables"); !strings.Contains(rules, "table ip nat") || !strings.Contains(rules, "table ip kairos") {
			r.Errorf("%s has the tables\n%s", m.Name(), rules)
		}
		if rules := r.exec(m.Name(), "nft", "list", "table", "ip", "nat"); !strings.Contains(rules, "chain KUBE-SERVICES") {
			r.Errorf("%s has no services:\n%s", m.Name(), rules)
		}
		if rules := r.exec(m.Name(), "sh", "-c", "iptables-legacy-save; ip6tables-legacy-save"); strings.TrimSpace(rules) != "" {
			r.Errorf("%s has rules in the older packet filter:\n%s", m.Name(), rules)
		}
	}
}

func (r *rig) podIP(name string) string {
	r.Helper()
	return r.kubectl("get", "pod", name, "-o", "jsonpath={.status.podIP}")
}

func (r *rig) testWorkerKubeconfig() {
	worker := r.machine(r.worker())
	out, err := worker.Exec(r.ctx, "kairos", "get-kubeconfig")
	if err == nil || out != "" {
		r.Errorf("a worker's answer: %q, %v; want nothing on stdout and an error", out, err)
	}
}

// running is what must live through restarts of ours: the processes of k3s and
// of the pod on a machine, by their numbers inside it.
func (r *rig) running(machine string) string {
	r.Helper()
	return r.exec(machine, "sh", "-c", "ctr -n kairos tasks ls | tail -n +2; ctr -n k8s.io tasks ls | tail -n +2 | sort")
}

func (r *rig) mainPID(machine, unit string) string {
	r.Helper()
	return strings.TrimSpace(r.exec(machine, "systemctl", "show", "-P", "MainPID", unit))
}

// killUnit kills a unit's main process and waits until the next one is up.
func (r *rig) killUnit(machine, unit string) {
	r.Helper()
	old := r.mainPID(machine, unit)
	r.exec(machine, "kill", "-KILL", old)
	r.eventually(time.Minute, unit+" is back", func() error {
		out, err := r.machine(machine).Exec(r.ctx, "systemctl", "show", "-P", "MainPID", "-P", "ActiveState", unit)
		if err != nil {
			return err
		}
		if f := strings.Fields(out); len(f) != 2 || f[0] == old || f[1] != "active" {
			return fmt.Errorf("its state is %v", f)
		}
		return nil
	})
}

func (r *rig) testKillAgent() {
	for _, machine := range []string{r.server(), r.worker()} {
		before := r.running(machine)
		if strings.Count(before, "RUNNING") < 3 { // k3s, a pod and its sandbox
			r.Fatalf("on %s runs too little:\n%s", machine, before)
		}
		r.killUnit(machine, "kairos-agent")
		r.await()
		if after := r.running(machine); after != before {
			r.Errorf("on %s ran\n%s\nbefore the agent was killed, and after:\n%s", machine, before, after)
		}
	}
	r.checkNodes()
}

func (r *rig) testRestartOverlay() {
	machine := r.worker()
	before := r.running(machine)
	r.killUnit(machine, "kairos-overlay")
	r.await()
	if after := r.running(machine); after != before {
		r.Errorf("on %s ran\n%s\nbefore the overlay was killed, and after:\n%s", machine, before, after)
	}
	r.eventually(time.Minute, "pods reach each other again", func() error {
		server, err := r.Server(r.ctx)
		if err != nil {
			return err
		}
		_, err = cluster.Kubectl(r.ctx, server, "exec", "one", "--", "/echo", "get", "http://"+r.podIP("two")+":8080/")
		return err
	})
	r.checkNodes()
}

// testDeletedNode deletes the Node object of a worker whose machine is well (fault T1).
// Kubernetes gives the new one another pod range, which the machine's bridge, and the
// pods that run there, have to follow (fault T2).
func (r *rig) testDeletedNode() {
	machine := r.worker()
	name := r.node(machine)
	podCIDR := func() string { return r.kubectl("get", "node", name, "-o", "jsonpath={.spec.podCIDR}") }
	before, uid := podCIDR(), r.kubectl("get", "node", name, "-o", "jsonpath={.metadata.uid}")
	began := time.Now()
	r.kubectl("delete", "node", name)
	r.eventually(time.Minute, "the node is back and ready", func() error {
		server, err := r.Server(r.ctx)
		if err != nil {
			return err
		}
		out, err := cluster.Kubectl(r.ctx, server, "get", "node", name, "-o", "jsonpath={.metadata.uid} {.status.conditions[?(@.type=='Ready')].status}")
		if f := strings.Fields(out); err == nil && (len(f) != 2 || f[0] == uid || f[1] != "True") {
			err = fmt.Errorf("it is %q", out)
		}
		return err
	})
	r.Logf("RESULT a deleted node was back after %.0f s, pod range %s, before %s", time.Since(began).Seconds(), podCIDR(), before)
	r.await()
	// What Kubernetes collected with the old Node is made again; what it did not has to move.
	manifest := filepath.Join(r.Lab.Dir(), "again.yaml")
	if err := os.WriteFile(manifest, []byte(r.pod("two", machine)+r.pod("back", machine)), 0o600); err != nil {
		r.Fatal(err)
	}
	r.kubectl("apply", "-f", manifest)
	in := netip.MustParsePrefix(podCIDR())
	r.eventually(2*time.Minute, "pods have addresses of the present range and are reached", func() error {
		for _, pod := range []string{"two", "back"} {
			server, err := r.Server(r.ctx)
			if err != nil {
				return err
			}
			ip, err := cluster.Kubectl(r.ctx, server, "get", "pod", pod, "-o", "jsonpath={.status.podIP}")
			if err != nil {
				return err
			}
			if addr, err := netip.ParseAddr(ip); err != nil || !in.Contains(addr) {
				return fmt.Errorf("%s has %q, which is not in %s", pod, ip, in)
			}
			if _, err := cluster.Kubectl(r.ctx, server, "exec", "one", "--", "/echo", "get", "http://"+ip+":8080/"); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *rig) testFourth() {
	r.addBare("node4", r.Built.RootFS, map[string]map[string]string{
		neverReady: impatient(map[string]string{
			// k3s ends again and again: its kubelet does not understand its own arguments.
			"etc/kairos/91-test.yaml": "#cloud-config\nkairos:\n  k3s:\n    args: [\"--kubelet-arg=feature-gates=NoSuchGate=true\"]\n",
		}),
		debians: r.debiansContainerd(),
	})
	r.cutOff()
	r.await()
	if v := cluster.Look(r.ctx, r.machine("node4")); v.Role != "worker" {
		r.Errorf("the fourth machine is a %q", v.Role)
	}
	r.checkNodes()
}

// testBridge is a person's laptop: it has the token and the command line.
func (r *rig) testBridge() {
	laptop, err := r.Lab.AddNetns(r.ctx, "laptop")
	if err != nil {
		r.Fatal(err)
	}
	defer laptop.Remove(r.ctx)
	token, err := r.Token()
	if err != nil {
		r.Fatal(err)
	}
	tokenFile := filepath.Join(laptop.Dir(), "token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		r.Fatal(err)
	}
	cmd, err := laptop.Command(r.ctx, r.Built.Kairos(), "bridge", "--network-token-file", tokenFile)
	if err != nil {
		r.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = r.Output(), r.Output()
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	kubeconfig := filepath.Join(laptop.Dir(), "kubeconfig")
	r.eventually(30*time.Second, "the bridge gets a kubeconfig", func() error {
		text, err := laptop.Exec(r.ctx, r.Built.Kairos(), "get-kubeconfig")
		if err != nil {
			return err
		}
		return os.WriteFile(kubeconfig, []byte(text), 0o600)
	})
	nodes, err := cluster.KubectlWith(r.ctx, laptop, kubeconfig, "get", "nodes", "--no-headers")
	if err != nil || strings.Count(nodes, " Ready ") != 4 {
		r.Errorf("nodes over the bridge: %v\n%s", err, nodes)
	}
	if _, err := laptop.Exec(r.ctx, "ping", "-n", "-c", "1", "-W", "5", r.node("node1")); err != nil {
		r.Errorf("a node by its name: %v", err)
	}
	// Pods are reached without a port-forward.
	if _, err := laptop.Exec(r.ctx, filepath.Join(filepath.Dir(r.Built.K3s.Archives[0]), "echo"), "get", "http://"+r.podIP("two")+":8080/"); err != nil {
		r.Errorf("a pod over the bridge: %v", err)
	}
	status, err := laptop.Exec(r.ctx, r.Built.Kairos(), "status")
	if err != nil || strings.Count(status, "worker") != 3 || strings.Count(status, "server") != 1 {
		r.Errorf("status: %v\n%s", err, status)
	}
	if err := lab.Signal(cmd, syscall.SIGINT); err != nil {
		r.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		r.Errorf("the bridge ended with %v", err)
	}
}

// testReboot reboots all machines at once, as after a power cut at night.
func (r *rig) testReboot() {
	before := map[string]cluster.View{}
	for _, m := range r.Lab.Machines() {
		before[m.Name()] = cluster.Look(r.ctx, m)
	}
	uid := r.clusterUID()
	began := time.Now()
	for _, m := range r.Lab.Machines() {
		if err := m.Reboot(r.ctx); err != nil {
			r.Fatal(err)
		}
	}
	r.await()
	r.Logf("RESULT %d machines rebooted and ready after %.0f s", len(before), time.Since(began).Seconds())
	for _, m := range r.Lab.Machines() {
		old, now := before[m.Name()], cluster.Look(r.ctx, m)
		if now.Name != old.Name || now.Address != old.Address || now.Role != old.Role {
			r.Errorf("%s was %+v and is %+v", m.Name(), old, now)
		}
	}
	if now := r.clusterUID(); now != uid || uid == "" {
		r.Errorf("the cluster was %q and is %q", uid, now)
	}
	r.checkNodes()
	r.kubectl("wait", "--for=condition=Ready", "pod/one", "pod/two", "--timeout=120s")
}

func (r *rig) clusterUID() string {
	r.Helper()
	client, err := cluster.Overlay(r.machine("node1"))
	if err != nil {
		r.Fatal(err)
	}
	c, err := client.Cluster(r.ctx)
	if err != nil {
		r.Fatal(err)
	}
	return c.UID
}
