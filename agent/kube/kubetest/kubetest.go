// Package kubetest is a Kubernetes API server in memory, with as much of
// Kubernetes as package kube asks for: versions and conflicts of the upgrade
// lock, nodes, and pods that end gracefully and have disruption budgets.
package kubetest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

const leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"

// Cluster implements kube.API. Its exported fields may be used while no request
// is under way, and in Edit.
type Cluster struct {
	Nodes map[string]*Node
	Pods  []*Pod
	Lease *Lease   // the upgrade lock; nil: none
	Log   []string // what was asked apart from reads: METHOD path
	// Before runs before every request and may change it; a path below /broken/
	// is answered with 500.
	Before func(r *http.Request)
	Down   error // what every request meets

	t    *testing.T
	mu   sync.Mutex
	last int // resource version
	mux  *http.ServeMux
}

// Node is a v1 Node.
type Node struct {
	Closed  bool   // unschedulable
	Address string // InternalIP
}

// Pod is a v1 Pod.
type Pod struct {
	Namespace, Name, UID, Node string
	Phase                      string
	Owner                      string // kind of its controller
	Mirror                     bool   // static, by a file of the node
	Protected                  bool   // by a disruption budget
	Ending                     bool   // deleted, and its kubelet is at it
}

// Lease is a coordination.k8s.io/v1 Lease.
type Lease struct {
	Metadata struct {
		Name            string            `json:"name"`
		Namespace       string            `json:"namespace"`
		ResourceVersion string            `json:"resourceVersion"`
		Annotations     map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		Holder      string `json:"holderIdentity"`
		Seconds     int    `json:"leaseDurationSeconds"`
		Acquired    string `json:"acquireTime"`
		Renewed     string `json:"renewTime"`
		Transitions int    `json:"leaseTransitions"`
	} `json:"spec"`
}

// New returns an empty cluster.
func New(t *testing.T) *Cluster {
	c := &Cluster{t: t, Nodes: map[string]*Node{}, mux: http.NewServeMux()}
	for pattern, h := range map[string]http.HandlerFunc{
		"GET " + leases + "/{name}":                         c.getLease,
		"POST " + leases:                                    c.createLease,
		"PUT " + leases + "/{name}":                         c.putLease,
		"GET /api/v1/nodes/{name}":                          c.getNode,
		"PATCH /api/v1/nodes/{name}":                        c.patchNode,
		"DELETE /api/v1/nodes/{name}":                       c.deleteNode,
		"GET /api/v1/pods":                                  c.listPods,
		"POST /api/v1/namespaces/{ns}/pods/{name}/eviction": func(w http.ResponseWriter, r *http.Request) { c.endPod(w, r, true) },
		"DELETE /api/v1/namespaces/{ns}/pods/{name}":        func(w http.ResponseWriter, r *http.Request) { c.endPod(w, r, false) },
		"/broken/": func(w http.ResponseWriter, _ *http.Request) { c.answer(w, http.StatusInternalServerError, nil) },
	} {
		c.mux.HandleFunc(pattern, h)
	}
	return c
}

// Do implements kube.API.
func (c *Cluster) Do(ctx context.Context, method, path string, body []byte) (int, []byte, error) {
	r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(string(body)))
	if c.Before != nil {
		c.Before(r)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Down != nil {
		return 0, nil, c.Down
	}
	if method != http.MethodGet {
		c.Log = append(c.Log, method+" "+r.URL.Path)
	}
	w := httptest.NewRecorder()
	c.mux.ServeHTTP(w, r)
	return w.Code, w.Body.Bytes(), nil
}

// Edit runs f while no request is under way.
func (c *Cluster) Edit(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// Finish is the kubelets: what was asked to end has ended.
func (c *Cluster) Finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var left []*Pod
	for _, p := range c.Pods {
		if !p.Ending {
			left = append(left, p)
		}
	}
	c.Pods = left
}

// answer writes v, or where it is nil what Kubernetes says of a status.
func (c *Cluster) answer(w http.ResponseWriter, status int, v any) {
	w.WriteHeader(status)
	if v == nil {
		v = map[string]string{"kind": "Status", "message": "so says the API: " + http.StatusText(status)}
	}
	if err := json.NewEncoder(w).Encode(v); err != nil {
		c.t.Error(err)
	}
}

func (c *Cluster) decode(r *http.Request, into any) {
	raw, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		c.t.Errorf("%s %s: %v: %s", r.Method, r.URL, err, raw)
	}
}

func (c *Cluster) getLease(w http.ResponseWriter, _ *http.Request) {
	if c.Lease == nil {
		c.answer(w, http.StatusNotFound, nil)
		return
	}
	c.answer(w, http.StatusOK, c.Lease)
}

func (c *Cluster) createLease(w http.ResponseWriter, r *http.Request) {
	if c.Lease != nil {
		c.answer(w, http.StatusConflict, nil)
		return
	}
	c.store(w, r)
}

func (c *Cluster) putLease(w http.ResponseWriter, r *http.Request) {
	if c.Lease == nil {
		c.answer(w, http.StatusNotFound, nil)
		return
	}
	c.store(w, r)
}

func (c *Cluster) store(w http.ResponseWriter, r *http.Request) {
	var next Lease
	c.decode(r, &next)
	if c.Lease != nil && next.Metadata.ResourceVersion != c.Lease.Metadata.ResourceVersion {
		c.answer(w, http.StatusConflict, nil)
		return
	}
	c.last++
	next.Metadata.ResourceVersion = fmt.Sprint(c.last)
	c.Lease = &next
	c.answer(w, http.StatusOK, next)
}

func (c *Cluster) node(w http.ResponseWriter, r *http.Request) *Node {
	n := c.Nodes[r.PathValue("name")]
	if n == nil {
		c.answer(w, http.StatusNotFound, nil)
	}
	return n
}

func (c *Cluster) getNode(w http.ResponseWriter, r *http.Request) {
	if n := c.node(w, r); n != nil {
		type address struct{ Type, Address string }
		c.answer(w, http.StatusOK, map[string]any{"status": map[string]any{
			"addresses": []address{{"Hostname", r.PathValue("name")}, {"InternalIP", n.Address}},
		}})
	}
}

func (c *Cluster) patchNode(w http.ResponseWriter, r *http.Request) {
	var patch struct {
		Spec struct {
			Closed *bool `json:"unschedulable"`
		} `json:"spec"`
	}
	c.decode(r, &patch)
	if n := c.node(w, r); n != nil {
		n.Closed = *patch.Spec.Closed
		c.answer(w, http.StatusOK, nil)
	}
}

func (c *Cluster) deleteNode(w http.ResponseWriter, r *http.Request) {
	if n := c.node(w, r); n != nil {
		delete(c.Nodes, r.PathValue("name"))
		c.answer(w, http.StatusOK, nil)
	}
}

// object is p as Kubernetes writes it.
func (p *Pod) object() map[string]any {
	meta := map[string]any{"namespace": p.Namespace, "name": p.Name, "uid": p.UID}
	if p.Owner != "" {
		meta["ownerReferences"] = []any{map[string]any{"kind": p.Owner, "controller": true}}
	}
	if p.Mirror {
		meta["annotations"] = map[string]any{"kubernetes.io/config.mirror": "1"}
	}
	if p.Ending {
		meta["deletionTimestamp"] = "2026-11-26T12:00:00Z"
	}
	return map[string]any{"metadata": meta, "status": map[string]any{"phase": p.Phase}}
}

// listPods gives one pod a page.
func (c *Cluster) listPods(w http.ResponseWriter, r *http.Request) {
	node, ok := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "spec.nodeName=")
	if !ok {
		c.t.Errorf("listed the pods of the whole cluster: %s", r.URL)
	}
	mine := []any{}
	for _, p := range c.Pods {
		if p.Node == node {
			mine = append(mine, p.object())
		}
	}
	at := 0
	_, _ = fmt.Sscan(r.URL.Query().Get("continue"), &at) // none: from the beginning
	list := map[string]any{"items": mine[min(at, len(mine)):min(at+1, len(mine))]}
	if at+1 < len(mine) {
		list["metadata"] = map[string]any{"continue": fmt.Sprint(at + 1)}
	}
	c.answer(w, http.StatusOK, list)
}

func (c *Cluster) endPod(w http.ResponseWriter, r *http.Request, budgets bool) {
	type preconditions struct{ UID string }
	var body struct {
		Preconditions preconditions `json:"preconditions"`
		Options       struct {
			Preconditions preconditions `json:"preconditions"`
		} `json:"deleteOptions"`
	}
	c.decode(r, &body)
	for _, p := range c.Pods {
		if p.Name != r.PathValue("name") || p.Namespace != r.PathValue("ns") {
			continue
		}
		switch uid := body.Preconditions.UID + body.Options.Preconditions.UID; {
		case uid != p.UID:
			c.answer(w, http.StatusConflict, nil)
		case budgets && p.Protected:
			c.answer(w, http.StatusTooManyRequests, nil)
		default:
			p.Ending = true
			c.answer(w, http.StatusCreated, nil)
		}
		return
	}
	c.answer(w, http.StatusNotFound, nil)
}
