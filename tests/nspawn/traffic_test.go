package nspawn

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kairos-io/kairos/tests/k3simage"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/cluster"
)

// traffic is three pods, one on each machine: tra on the server, trb and trc on workers.
type traffic struct {
	*rig
	machines map[string]*lab.Machine // of a pod
	fill     *strings.Replacer       // of what a table names
}

// flow is one question and what must be in its answer. From is a pod, or "host of" one.
type flow struct {
	name, from, command, want string
}

// flows are what a cluster has to carry. $tra is the address of a pod, $node-tra that of its
// machine, $all that of a service.
var flows = []flow{
	{"a service", "tra", "get http://$all/", "host=tr"},
	{"a service, from a machine", "host of trb", "get http://$all/", "host=tr"},
	{"a pod's own service: hairpin", "tra", "get http://$own/", "host=tra"},
	{"NodePort where the pod is", "host of trb", "get http://$node-trb:30080/", "host=trb"},
	{"NodePort where it is not", "host of trc", "get http://$node-tra:30080/", "host=trb"},
	{"NodePort, from a pod", "trc", "get http://$node-tra:30080/", "host=trb"},
	{"NodePort, 8 MiB", "trc", "post http://$node-tra:30080/ 8388608", "8388608 "},
	{"externalTrafficPolicy Local: the client is who it is", "host of tra", "get http://$node-trb:30081/", "host=trb client=$node-tra:"},
	{"LoadBalancer", "tra", "get http://192.0.2.80/", "host=trb"},
	{"hostPort", "host of tra", "get http://$node-trb:8088/", "host=trb"},
	{"hostPort, from a pod", "trc", "get http://$node-trb:8088/", "host=trb"},
	{"machine to pod", "host of tra", "get http://$trb:8080/", "host=trb client=$node-tra:"},
	{"machine to its own pod", "host of tra", "get http://$tra:8080/", "host=tra"},
	{"pod to machine", "tra", "get http://$node-trb:10256/healthz", "lastUpdated"},
	{"pod to its own machine", "trb", "get http://$node-trb:10256/healthz", "lastUpdated"},
	{"UDP", "tra", "udp $trb:8080 100", "host=trb client=$tra:"},
	{"UDP, a service", "tra", "udp $all:80 100", "host=tr"},
	{"UDP, in 43 pieces", "tra", "udp $trb:8080 60000", "size=60000"},
}

const trafficServices = `
apiVersion: v1
kind: Service
metadata: {name: all}
spec: {selector: {app: traffic}, ports: [{name: t, port: 80, targetPort: 8080}, {name: u, port: 80, targetPort: 8080, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: own}
spec: {selector: {name: tra}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec: {selector: {app: traffic}, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: anywhere}
spec: {type: NodePort, selector: {name: trb}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec: {type: NodePort, externalTrafficPolicy: Local, selector: {name: trb}, ports: [{port: 80, targetPort: 8080, nodePort: 30081}]}
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec: {type: LoadBalancer, selector: {name: trb}, ports: [{port: 80, targetPort: 8080}]}
`

// policies: only tra may ask trb, and trc may ask tra alone.
const policies = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-tra}
spec: {podSelector: {matchLabels: {name: trb}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {name: tra}}}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: to-tra}
spec: {podSelector: {matchLabels: {name: trc}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {name: tra}}}]}]}
`

// testTraffic: whatever a cluster carries, over three machines.
func (r *rig) testTraffic() {
	server := r.machine(r.server())
	t := &traffic{rig: r, machines: map[string]*lab.Machine{"tra": server}}
	workers := slices.DeleteFunc(r.Lab.Machines(), func(m *lab.Machine) bool { return m.Name() == server.Name() })
	t.machines["trb"], t.machines["trc"] = workers[0], workers[1]
	defer r.kubectl("delete", "--wait=false", "--ignore-not-found", "pod,service,networkpolicy", "-l", "part=traffic")
	t.deploy()
	for _, f := range flows {
		if got, err := t.ask(f); err != nil || !strings.Contains(got, t.fill.Replace(f.want)) {
			r.Errorf("%s: %q, %v; want %s", f.name, got, err, t.fill.Replace(f.want))
		}
	}
	if got, err := t.ask(flow{from: "host of trc", command: "get http://$node-tra:30081/"}); err == nil {
		r.Errorf("a service of type Local answers where none of its pods is: %s", got)
	}
	first, err := t.ask(flow{from: "trc", command: "get http://$sticky/"})
	for range 8 {
		next, nextErr := t.ask(flow{from: "trc", command: "get http://$sticky/"})
		if a, b := strings.Fields(first+" -"), strings.Fields(next+" -"); err != nil || nextErr != nil || a[0] != b[0] {
			r.Errorf("with sessionAffinity two answered: %q %v, %q %v", first, err, next, nextErr)
		}
	}
	t.testPolicies()
}

// deploy starts the pods and services, and waits until each of them is known everywhere.
func (t *traffic) deploy() {
	t.Helper()
	text := trafficServices
	for name, m := range t.machines {
		port := ""
		if name == "trb" {
			port = ", ports: [{containerPort: 8080, hostPort: 8088}]"
		}
		text += fmt.Sprintf(`
---
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: traffic, name: %[1]s}}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 1
  containers: [{name: echo, image: %q, imagePullPolicy: Never%s}]
`, name, t.node(m.Name()), k3simage.EchoName, port)
	}
	t.apply(text)
	t.kubectl("label", "--overwrite", "pod", "-l", "app=traffic", "part=traffic")
	t.kubectl("label", "service", "all", "own", "sticky", "anywhere", "local", "balanced", "part=traffic")
	t.kubectl("wait", "--for=condition=Ready", "--timeout=90s", "pod", "-l", "part=traffic")
	t.balance("balanced", "192.0.2.80")
	names := []string{}
	for name, m := range t.machines { // the longer names first
		names = append([]string{"$node-" + name, cluster.Look(t.ctx, m).Address}, append(names, "$"+name, t.podIP(name))...)
	}
	for _, name := range []string{"all", "own", "sticky"} {
		names = append(names, "$"+name, t.kubectl("get", "service", name, "-o", "jsonpath={.spec.clusterIP}"))
	}
	t.fill = strings.NewReplacer(names...)
	for _, f := range flows { // kube-proxy follows in its own time
		t.eventually(time.Minute, f.name, func() error {
			_, err := t.ask(f)
			return err
		})
	}
}

// balance gives a service the address that a load balancer would.
func (t *traffic) balance(service, address string) {
	t.Helper()
	path := "/api/v1/namespaces/default/services/" + service
	var object map[string]any
	err := json.Unmarshal([]byte(t.kubectl("get", "--raw", path)), &object)
	if err != nil {
		t.Fatal(err)
	}
	object["status"] = map[string]any{"loadBalancer": map[string]any{"ingress": []any{map[string]any{"ip": address}}}}
	raw, err := json.Marshal(object)
	file := filepath.Join(t.Lab.Dir(), "status.json")
	if err == nil {
		err = os.WriteFile(file, raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.kubectl("replace", "--raw", path+"/status", "-f", file)
}

func (t *traffic) apply(text string) {
	t.Helper()
	file := filepath.Join(t.Lab.Dir(), "traffic.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.kubectl("apply", "-f", file)
}

// ask asks once.
func (t *traffic) ask(f flow) (string, error) {
	command := t.fill.Replace(f.command)
	if pod, ok := strings.CutPrefix(f.from, "host of "); ok {
		return t.machines[pod].Get(t.ctx, strings.TrimPrefix(command, "get "), "")
	}
	return cluster.Kubectl(t.ctx, t.machines["tra"], append([]string{"exec", f.from, "--", "/echo"}, strings.Fields(command)...)...)
}

// testPolicies: network policies hold between machines, in both directions.
func (t *traffic) testPolicies() {
	t.apply(policies)
	t.kubectl("label", "networkpolicy", "only-tra", "to-tra", "part=traffic")
	for _, c := range []struct {
		from, to string
		may      bool
	}{{"tra", "trb", true}, {"trc", "trb", false}, {"trc", "tra", true}, {"tra", "trc", true}, {"trb", "trc", true}} {
		t.eventually(time.Minute, fmt.Sprintf("network policies let %s ask %s: %v", c.from, c.to, c.may), func() error {
			got, err := t.ask(flow{from: c.from, command: "udp $" + c.to + ":8080 1"})
			if (err == nil) != c.may {
				return fmt.Errorf("%q, %w", got, err)
			}
			return nil
		})
		got, err := t.ask(flow{from: c.from, command: "get http://$" + c.to + ":8080/"})
		if (err == nil) != c.may {
			t.Errorf("network policies: %s asks %s: %q, %v; may it: %v", c.from, c.to, got, err, c.may)
		}
	}
}
