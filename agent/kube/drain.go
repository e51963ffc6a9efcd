package kube

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
)

// podPage is how many pods are listed at once; an answer has to stay small.
const podPage = 100

// forcedGrace is how many seconds a pod has to end once it is forced to.
const forcedGrace = 30

// Pod is one that is still on a node.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Why       string `json:"why"` // why it is still there, one line
}

// String is "namespace/name (why)".
func (p Pod) String() string { return fmt.Sprintf("%s/%s (%s)", p.Namespace, p.Name, p.Why) }

// Progress is how far a drain is.
type Progress struct {
	Gone bool  `json:"gone,omitempty"` // the cluster has no such node
	Left []Pod `json:"left,omitempty"` // pods that have to go and are still there
}

// Drain does one round of emptying a node: no new pods, and every pod that has to
// go is asked to, by the eviction API, which respects PodDisruptionBudgets. It
// returns which are still there; the caller comes back until there are none.
// With force they are deleted instead, whatever their budgets say.
//
// Pods of a DaemonSet and static ones stay, as they belong to the node, and so
// do those that have ended.
func Drain(ctx context.Context, api API, node string, force bool) (Progress, error) {
	found, err := cordon(ctx, api, node, true)
	if err != nil || !found {
		return Progress{Gone: err == nil}, err
	}
	pods, err := podsOf(ctx, api, node)
	if err != nil {
		return Progress{}, err
	}
	var p Progress
	for _, pod := range pods {
		if pod.stays() {
			continue
		}
		why, err := pod.evict(ctx, api, force)
		if err != nil {
			return Progress{}, err
		}
		if why != "" {
			p.Left = append(p.Left, Pod{Namespace: pod.Metadata.Namespace, Name: pod.Metadata.Name, Why: why})
		}
	}
	return p, nil
}

// Uncordon lets a node have pods again after all.
func Uncordon(ctx context.Context, api API, node string) error {
	_, err := cordon(ctx, api, node, false)
	return err
}

// Remove deletes the node object. One that is not there is done already. k3s
// lets go of the name with it. The node's kubelet must have stopped: it would
// register the node again.
func Remove(ctx context.Context, api API, node string) error {
	const verb = "delete the node"
	status, raw, err := call(ctx, api, exchange{verb: verb, method: http.MethodDelete, path: nodePath(node)})
	if err == nil && status/100 != 2 && status != http.StatusNotFound {
		err = unexpected(verb, status, raw)
	}
	return err
}

// BelongsTo reports whether the node of this name is the machine with these
// overlay addresses; found is false where the cluster has no such node.
func BelongsTo(ctx context.Context, api API, node string, addrs []netip.Addr) (belongs, found bool, err error) {
	var n struct {
		Status struct {
			Addresses []struct{ Type, Address string } `json:"addresses"`
		} `json:"status"`
	}
	const verb = "look at the node"
	status, raw, err := call(ctx, api, exchange{verb: verb, method: http.MethodGet, path: nodePath(node), out: &n})
	switch {
	case err != nil:
		return false, false, err
	case status == http.StatusNotFound:
		return false, false, nil
	case status != http.StatusOK:
		return false, false, unexpected(verb, status, raw)
	}
	for _, a := range n.Status.Addresses {
		ip, err := netip.ParseAddr(a.Address)
		if a.Type == "InternalIP" && err == nil && slices.Contains(addrs, ip) {
			return true, true, nil
		}
	}
	return false, true, nil
}

func nodePath(node string) string { return "/api/v1/nodes/" + url.PathEscape(node) }

// cordon says whether a node may get new pods; found is false where there is no such node.
func cordon(ctx context.Context, api API, node string, closed bool) (found bool, err error) {
	const verb = "close the node to new pods"
	patch := map[string]any{"spec": map[string]any{"unschedulable": closed}}
	status, raw, err := call(ctx, api, exchange{verb: verb, method: http.MethodPatch, path: nodePath(node), in: patch})
	switch {
	case err != nil:
		return false, err
	case status == http.StatusNotFound:
		return false, nil
	case status/100 != 2:
		return false, unexpected(verb, status, raw)
	}
	return true, nil
}

// pod is the part of a v1 Pod that matters here.
type pod struct {
	Metadata struct {
		Namespace   string            `json:"namespace"`
		Name        string            `json:"name"`
		UID         string            `json:"uid"`
		Annotations map[string]string `json:"annotations"`
		Deleted     string            `json:"deletionTimestamp"`
		Owners      []struct {
			Kind       string `json:"kind"`
			Controller bool   `json:"controller"`
		} `json:"ownerReferences"`
	} `json:"metadata"`
	Status struct {
		Phase string `json:"phase"`
	} `json:"status"`
}

func podsOf(ctx context.Context, api API, node string) ([]pod, error) {
	const verb = "list the node's pods"
	var all []pod
	token := ""
	for {
		var page struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []pod `json:"items"`
		}
		q := url.Values{"fieldSelector": {"spec.nodeName=" + node}, "limit": {fmt.Sprint(podPage)}}
		if token != "" {
			q.Set("continue", token)
		}
		status, raw, err := call(ctx, api, exchange{verb: verb, method: http.MethodGet, path: "/api/v1/pods?" + q.Encode(), out: &page})
		if err != nil {
			return nil, err
		}
		if status != http.StatusOK {
			return nil, unexpected(verb, status, raw)
		}
		all = append(all, page.Items...)
		if token = page.Metadata.Continue; token == "" {
			return all, nil
		}
	}
}

// stays reports whether a pod need not go.
func (p *pod) stays() bool {
	_, mirror := p.Metadata.Annotations["kubernetes.io/config.mirror"]
	ended := p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed"
	daemon := false
	for _, o := range p.Metadata.Owners {
		daemon = daemon || o.Controller && o.Kind == "DaemonSet"
	}
	return mirror || ended || daemon
}

// evict asks a pod to go and returns why it is still there, "" if it is gone.
// The UID keeps its successor of the same name (a StatefulSet's) out of it.
func (p *pod) evict(ctx context.Context, api API, force bool) (why string, err error) {
	const ending = "it is ending"
	if p.Metadata.Deleted != "" && !force {
		return ending, nil
	}
	m := p.Metadata
	path := "/api/v1/namespaces/" + url.PathEscape(m.Namespace) + "/pods/" + url.PathEscape(m.Name)
	same := map[string]any{"uid": m.UID}
	x := exchange{verb: "evict " + m.Namespace + "/" + m.Name, method: http.MethodPost, path: path + "/eviction", in: map[string]any{
		"apiVersion": "policy/v1", "kind": "Eviction",
		"metadata":      map[string]any{"namespace": m.Namespace, "name": m.Name},
		"deleteOptions": map[string]any{"preconditions": same},
	}}
	if force {
		x = exchange{verb: "delete " + m.Namespace + "/" + m.Name, method: http.MethodDelete, path: path, in: map[string]any{
			"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": forcedGrace, "preconditions": same,
		}}
	}
	status, raw, err := call(ctx, api, x)
	switch {
	case err != nil:
		return "", err
	case status == http.StatusNotFound, status == http.StatusConflict: // gone, or another pod by now
		return "", nil
	case status == http.StatusTooManyRequests:
		return "its disruption budget does not allow it yet", nil
	case status/100 != 2: // several budgets, a namespace that ends: the other pods are not kept up by it
		return unexpected(x.verb, status, raw).Error(), nil
	}
	return ending, nil
}
