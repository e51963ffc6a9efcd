package appliance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/tests/k3simage"
	"github.com/kairos-io/kairos/tests/vm"
)

// Two machines with one config.yaml and everything they need on their disks are
// a cluster although nothing but their LAN exists: no registry, no router, no
// name server.
func TestClusterOnALANOfItsOwn(t *testing.T) {
	s := newStory(t, 2)
	r := s.serveRegistry()
	disk := s.flashable(seeded(named("v1")))
	config := s.config("os: {health_timeout: 5m}") + skipAddons()
	server, worker := s.twoNodes(disk, config)
	s.step("a pod on each, and they reach each other", func() { s.podsReachEachOther(server, worker) })
	worker.Eject(1)
	for range rounds() {
		s.step("a worker gives up a system under which Kubernetes does not call it ready", func() {
			before := worker.boots()
			worker.upgrade(r.publish(t, s.release(seeded(neverReady())), "never-ready"))
			// Which of the two depends on whether k3s has just ended.
			worker.fallsBackTo("v1", "waiting for (k3s to run|Kubernetes to call this node ready)")
			worker.gaveUpWithin(3, before)
			s.clusterReady(server, worker)
			if now := worker.role(); now != "worker" {
				s.Errorf("it was a worker and is %q", now)
			}
		})
	}
}

// A worker that is reset leaves its cluster and joins it again as another machine.
func TestResetInACluster(t *testing.T) {
	s := newStory(t, 2)
	disk, config := s.flashable(seeded(named("v1"))), s.config()+skipAddons()
	server, worker := s.twoNodes(disk, config)
	before := worker.node()
	worker.wipes("kairos reset --yes")
	s.clusterReady(server, worker)
	if nodes := server.kubectl("get", "nodes", "-o", "name"); strings.Contains(nodes, before) || !strings.Contains(nodes, worker.node()) {
		s.Errorf("the worker was %s, is %s, and the cluster has\n%s", before, worker.node(), nodes)
	}
}

// twoNodes starts two machines and waits until they are a cluster. Both work all the
// time, and two processors emulate no more than two: each has one.
func (s *story) twoNodes(disk, config string) (server, worker *guest) {
	s.Helper()
	began := time.Now()
	start := func(name string) *guest {
		return s.machine(vm.Config{Name: name, Memory: 3072, CPUs: 1}, disk, s.seed(name, config)).on()
	}
	one, two := start("one"), start("two")
	one.up(began)
	two.up(began)
	s.clusterReady(one, two)
	s.Logf("RESULT two machines are ready nodes %.0f s after they were switched on", time.Since(began).Seconds())
	if two.role() == "server" {
		return two, one
	}
	return one, two
}

// seeded is the system with k3s and the images of pods in it.
func seeded(e edit) edit {
	e.Seeded = true
	return e
}

// neverReady: k3s ends again and again, since its kubelet does not understand its
// own arguments.
func neverReady() edit {
	return named("never-ready").with("etc/kairos/90-test.yaml", fmt.Sprintf(`#cloud-config
kairos:
  os: {health_timeout: %.0fs}
  k3s:
    args: ["--kubelet-arg=feature-gates=NoSuchGate=true"]
`, *patience*150))
}

// aCluster is how long two emulated machines may take to be two ready nodes,
// from where one can log in to both.
const aCluster = 15 * time.Minute

// clusterReady waits until every machine is a ready node.
func (s *story) clusterReady(machines ...*guest) {
	s.Helper()
	ctx, cancel := s.within(aCluster)
	defer cancel()
	for _, m := range machines {
		_, err := m.Exec(ctx, fmt.Sprintf(`until [ "$(kairos status -o json | grep -c '"ready": *"true"')" -ge %d ]; do sleep 2; done`, len(machines)))
		if err != nil {
			s.Fatalf("%s: wait for %d ready nodes: %v\n%s", m.Name, len(machines), err, m.run("kairos status || :"))
		}
	}
}

func (g *guest) role() string {
	g.s.Helper()
	for _, n := range g.status().Nodes {
		if n.Self {
			return n.Annotations["role"]
		}
	}
	return ""
}

// node is the machine's name in Kubernetes.
func (g *guest) node() string {
	g.s.Helper()
	return g.status().Status.Name
}

func (s *story) podsReachEachOther(server, worker *guest) {
	s.Helper()
	var manifests strings.Builder
	pods := map[string]*guest{"one": server, "two": worker}
	for name, m := range pods {
		fmt.Fprintf(&manifests, `
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 1
  containers: [{name: echo, image: %q, imagePullPolicy: Never}]
---
`, name, m.node(), k3simage.EchoName)
	}
	server.kubectl("apply", "-f", s.file("pods.yaml", manifests.String()))
	server.kubectl("wait", "--for=condition=Ready", "pod/one", "pod/two", "--timeout=110s")
	addr := map[string]string{}
	for name := range pods {
		addr[name] = server.kubectl("get", "pod", name, "-o", "jsonpath={.status.podIP}")
	}
	for from, to := range map[string]string{"one": "two", "two": "one"} {
		if got := server.kubectl("exec", from, "--", "/echo", "get", "http://"+addr[to]+":8080/"); !strings.Contains(got, "host="+to) || !strings.Contains(got, "client="+addr[from]+":") {
			s.Errorf("pod %s asks pod %s: %q", from, to, got)
		}
		pods[from].run("ping -n -c 2 -W 5 " + addr[to])
	}
}

// addons are k3s' own that need images from a registry. A file beside its
// manifest is k3s' way to leave one out; it does nothing on a worker.
var addons = []string{
	"coredns.yaml", "traefik.yaml", "local-storage.yaml", "aggregated-metrics-reader.yaml", "auth-delegator.yaml", "auth-reader.yaml",
	"metrics-apiservice.yaml", "metrics-server-deployment.yaml", "metrics-server-service.yaml", "resource-reader.yaml",
}

func skipAddons() string {
	var b strings.Builder
	b.WriteString("write_files:\n")
	for _, name := range addons {
		fmt.Fprintf(&b, "- {path: /var/lib/rancher/k3s/server/manifests/%s.skip, content: \"\"}\n", name)
	}
	return b.String()
}
