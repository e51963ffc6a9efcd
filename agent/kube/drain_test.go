package kube

import (
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/agent/kube/kubetest"
)

// put makes a pod on node n1; change sets what is special about it.
func put(c *kubetest.Cluster, name string, change func(*kubetest.Pod)) {
	p := &kubetest.Pod{Node: "n1", Namespace: "ns", Name: name, UID: "uid-" + name, Phase: "Running"}
	if change != nil {
		change(p)
	}
	c.Pods = append(c.Pods, p)
}

func ownedBy(kind string) func(*kubetest.Pod) { return func(p *kubetest.Pod) { p.Owner = kind } }

func drain(t *testing.T, c *kubetest.Cluster, force bool) Progress {
	t.Helper()
	p, err := Drain(t.Context(), c, "n1", force)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func names(p Progress) []string {
	var out []string
	for _, l := range p.Left {
		out = append(out, l.String())
	}
	return out
}

func TestDrain(t *testing.T) {
	c := kubetest.New(t)
	c.Nodes["n1"], c.Nodes["n2"] = &kubetest.Node{}, &kubetest.Node{}
	put(c, "web", ownedBy("ReplicaSet"))
	put(c, "bare", nil)
	put(c, "guarded", func(p *kubetest.Pod) { p.Protected = true })
	put(c, "agent", ownedBy("DaemonSet"))
	put(c, "static", func(p *kubetest.Pod) { p.Mirror = true })
	put(c, "job", func(p *kubetest.Pod) { p.Phase = "Succeeded" })
	put(c, "elsewhere", func(p *kubetest.Pod) { p.Node = "n2" })

	const budget = "ns/guarded (its disruption budget does not allow it yet)"
	if got, want := names(drain(t, c, false)), []string{"ns/web (it is ending)", "ns/bare (it is ending)", budget}; !reflect.DeepEqual(got, want) {
		t.Errorf("first round: %q", got)
	}
	if !c.Nodes["n1"].Closed || c.Nodes["n2"].Closed {
		t.Errorf("closed to new pods: %v", c.Nodes)
	}
	c.Finish()
	if got := names(drain(t, c, false)); !reflect.DeepEqual(got, []string{budget}) {
		t.Errorf("second round: %q", got)
	}
	if got := names(drain(t, c, true)); !reflect.DeepEqual(got, []string{"ns/guarded (it is ending)"}) {
		t.Errorf("by force: %q", got)
	}
	c.Finish()
	if p := drain(t, c, false); len(p.Left) > 0 || p.Gone {
		t.Errorf("at the end: %+v", p)
	}
	var left []string
	for _, p := range c.Pods {
		left = append(left, p.Name)
	}
	if !slices.Equal(left, []string{"agent", "static", "job", "elsewhere"}) {
		t.Errorf("still there: %q", left)
	}
}

// A pod that is ending already is not asked again, and one that came in its place
// under the same name (a StatefulSet's, on another node) is left alone.
func TestDrainLeavesSuccessorsAlone(t *testing.T) {
	c := kubetest.New(t)
	c.Nodes["n1"] = &kubetest.Node{Address: "10.77.0.2"}
	put(c, "db-0", ownedBy("StatefulSet"))
	c.Before = func(r *http.Request) {
		if r.Method == http.MethodPost {
			c.Pods[0].UID = "uid-successor"
		}
	}
	if p := drain(t, c, false); len(p.Left) > 0 || c.Pods[0].Ending {
		t.Errorf("left %v, the successor ends: %v", p.Left, c.Pods[0].Ending)
	}
	c.Before = nil
	drain(t, c, false)
	asked := len(c.Log)
	drain(t, c, false)
	if more := c.Log[asked:]; len(more) != 1 { // the cordon alone
		t.Errorf("asked again: %q", more)
	}
}

func TestDrainOfNobody(t *testing.T) {
	c := kubetest.New(t)
	if p := drain(t, c, false); !p.Gone {
		t.Errorf("got %+v", p)
	}
	if err := Remove(t.Context(), c, "n1"); err != nil {
		t.Errorf("remove what is not there: %v", err)
	}
}

func TestUncordonAndRemove(t *testing.T) {
	c := kubetest.New(t)
	c.Nodes["n1"] = &kubetest.Node{Closed: true}
	if err := Uncordon(t.Context(), c, "n1"); err != nil || c.Nodes["n1"].Closed {
		t.Errorf("closed %v, %v", c.Nodes["n1"].Closed, err)
	}
	if err := Remove(t.Context(), c, "n1"); err != nil || len(c.Nodes) != 0 {
		t.Errorf("nodes %v, %v", c.Nodes, err)
	}
}

func TestBelongsTo(t *testing.T) {
	c := kubetest.New(t)
	c.Nodes["n1"] = &kubetest.Node{Address: "10.77.0.2"}
	c.Nodes["10.77.0.3"] = &kubetest.Node{Address: "10.77.0.4"}
	tests := []struct {
		name, node, addr string
		belongs, found   bool
	}{
		{"its own", "n1", "10.77.0.2", true, true},
		{"another's", "n1", "10.77.0.3", false, true},
		{"a name that looks like the address", "10.77.0.3", "10.77.0.3", false, true},
		{"no such node", "n2", "10.77.0.2", false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			belongs, found, err := BelongsTo(t.Context(), c, tt.node, []netip.Addr{netip.MustParseAddr(tt.addr)})
			if err != nil || belongs != tt.belongs || found != tt.found {
				t.Errorf("belongs %v, found %v, %v", belongs, found, err)
			}
		})
	}
}

// A refusal of the API is told with its words.
func TestDrainSaysWhy(t *testing.T) {
	broken := func(method string) *kubetest.Cluster {
		c := kubetest.New(t)
		c.Nodes["n1"] = &kubetest.Node{}
		put(c, "web", nil)
		put(c, "db", nil)
		c.Before = func(r *http.Request) {
			if r.Method == method && (method != http.MethodPost || strings.Contains(r.URL.Path, "web")) {
				r.URL.Path = "/broken" + r.URL.Path
			}
		}
		return c
	}
	for method, verb := range map[string]string{http.MethodPatch: "close the node to new pods", http.MethodGet: "list the node's pods"} {
		want := verb + ": so says the API: Internal Server Error"
		if _, err := Drain(t.Context(), broken(method), "n1", false); err == nil || err.Error() != want {
			t.Errorf("%s: got %v", method, err)
		}
	}
	// One pod does not keep the others up.
	got := names(drain(t, broken(http.MethodPost), false))
	want := []string{"ns/web (evict ns/web: so says the API: Internal Server Error)", "ns/db (it is ending)"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}
