// Package podnet gives this node's pods their network: the overlay is the CNI.
//
//	pod ──veth── cni0 (bridge, <podCIDR>.1) ──routing── kairos0 (overlay) ──> other nodes' pods
//	                                          └──masquerade── uplink ──> internet
//
// It writes a CNI configuration for the node's pod range (reference plugins
// bridge, host-local and portmap, CNI specification 0.4), one nftables table of
// its own, and the few sysctls that routing needs. Everything is idempotent and
// replaced as a whole.
package podnet
