// Package lab makes small networks of machines on one Linux host, for the
// tests and for `make up`. A lab has a network of its own and machines of two
// kinds:
//
//	netns    namespaces (network, mounts, host name, processes) in which the
//	         programs of this repository run as plain processes
//	nspawn   a whole operating system: a root file system booted by
//	         systemd-nspawn with a writable layer of its own
//
// The network is one namespace with a bridge; the host itself takes part
// through one veth where that is asked for:
//
//	host ──────────────┐ .2
//	                   │
//	   ┌── namespace kl<id> ───────────────┐
//	   │      bridge br0 172.30.N.1/24     │      partition = ports move to
//	   │     ┌────────┬────────┐           │      further bridges br1, br2...
//	   └─────┼────────┼────────┼───────────┘
//	         │ .11    │ .12    │ .13
//	       node1    node2    node3
//
// Everything a lab makes is named after its id and listed in its directory
// before it is made, so Down finds all of it, after a crash as well, and
// touches nothing else. Processes are found by the lab's own control groups.
// Several labs can run at once. Everything here needs root.
package lab
