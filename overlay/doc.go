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
//
// What others can do to it:
//
//   - Who has no token, on this network or in between, gets no further than a
//     handshake. They see that a member is there, and its ID.
//   - A page in the browser gets nothing, a local process what the read-only
//     API shows. The user to whom a bridge gives its socket may read and get
//     kubeconfigs; steering and signing are root's.
//   - Who has the token is a member, under as many IDs and of whatever kind it
//     likes, and so may ask for what a bridge may ask for: the token is the
//     door to the cluster's administration too. It cannot speak or send as
//     another ID, take another's IPv6 address or ID name, or a pod prefix in use.
//   - A compromised member can disturb more than itself: it may claim another's
//     IPv4 address (what runs there proves itself by keys), make members dial
//     addresses that it invents, and lie in a vote that is under way.
package overlay
