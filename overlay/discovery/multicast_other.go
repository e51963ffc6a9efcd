//go:build !linux

package discovery

import (
	"net"
	"net/netip"
)

// openMulticast joins a group on one interface, as far as the standard library goes.
func openMulticast(ifi *net.Interface, group netip.AddrPort) (*net.UDPConn, error) {
	network := "udp4"
	if group.Addr().Is6() {
		network = "udp6"
	}
	return net.ListenMulticastUDP(network, ifi, net.UDPAddrFromAddrPort(group))
}
