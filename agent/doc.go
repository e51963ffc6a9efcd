// Package agent is the node: it takes part in the agreement on who creates the
// cluster, runs k3s accordingly, and gives pods their network. It uses the
// overlay through its unix socket only and talks to other agents over mutual TLS.
//
// Run is one level-triggered loop; nothing but the store and k3s' own files is
// remembered between two turns that matters:
//
//	observe ──> role.Plan ──> store.Save ──> act ──> publish ──┐
//	   ^                                                       │
//	   └──── members changed, agreement moved, time passed ────┘
//
// Long work (pulling an image) runs beside the loop and shows as a reason to wait.
// When the agent dies, k3s and pods live on; the next one adopts them.
//
// With cluster.enabled: false the same loop only retires: k3s is stopped, role
// and pod range are withdrawn, and nothing is deleted. A node that a person asked
// to leave is retired the same way until the next boot, after its pods were moved
// away and before its node object is deleted: see package departure. What only an
// administrator may do for it, and the lock that lets one server after the other
// upgrade, goes through the Kubernetes API of a server: package kube.
//
// Log fields: peer (ID), addr, cluster (UID), epoch, phase, image, err.
package agent
