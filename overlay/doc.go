// Package overlay is the network: it makes this machine a member of the mesh
// that shares its token, and gives it an interface over which every member is
// one hop away. It knows nothing of Kubernetes and is usable alone.
//
// Start puts the rooms together and returns a Node. What connects them is one
// loop, level-triggered and without memory of its own:
//
//	members change ─┐                       ┌─▶ address claim ─▶ own record
//	peers come, go ─┼─▶ wake ─▶ reconcile ──┼─▶ route table ───▶ datapath, kernel
//	control calls ──┘                       ├─▶ underlay addresses ─▶ mesh
//	                                        ├─▶ names ─▶ dns
//	                                        └─▶ revision ─▶ who waits at the API
//
// A change that arrives while the loop runs makes it run once more; many
// changes make it run once.
package overlay
