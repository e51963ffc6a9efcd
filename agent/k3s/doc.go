// Package k3s runs k3s as a container of the host's containerd and talks to it.
//
// The container belongs to containerd's shim, not to the agent: it lives on
// when the agent dies, and the next agent adopts it. Pods run in the same
// containerd beside it (namespace k8s.io), so they outlive k3s as well.
//
//	agent ──containerd API──> containerd ──shim──> k3s (namespace "kairos")
//	                              ^                 │ CRI socket
//	                              └─────────────────┘──shims──> pods
//
// The container is privileged and shares the host's network, PIDs and the
// directories that kubelet needs. What is secret reaches k3s in files of mode
// 0600 only: never by arguments, environment or labels.
//
// Flags are those that both k3s 1.25 and current releases know.
package k3s

import "errors"

// DefaultImage is the k3s that this version of Kairos was made for: the newest patch of
// a minor that is looked after until the end of February 2027.
const DefaultImage = "docker.io/rancher/k3s:v1.35.8-k3s1"

// APIPort is where the control plane listens on the overlay address.
const APIPort = 6443

// Sentinel errors; they come wrapped.
var (
	// ErrNoRuntime: containerd does not answer.
	ErrNoRuntime = errors.New("containerd does not answer")
	// ErrNotReady: k3s runs and does not answer as it should yet.
	ErrNotReady = errors.New("k3s is not ready yet")
	// ErrNoNode: the cluster has no such node yet.
	ErrNoNode = errors.New("the node is not registered yet")
)
