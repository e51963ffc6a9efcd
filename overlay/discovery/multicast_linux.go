package discovery

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// openMulticast joins a group on one interface, shares the port with other
// responders of the machine (avahi, systemd-resolved, other nodes), and hears
// the interface's packets only.
func openMulticast(ifi *net.Interface, group netip.AddrPort) (*net.UDPConn, error) {
	network := "udp4"
	if group.Addr().Is6() {
		network = "udp6"
	}
	conn, err := net.ListenMulticastUDP(network, ifi, net.UDPAddrFromAddrPort(group))
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var inner error
		err = raw.Control(func(fd uintptr) { inner = setMulticast(int(fd), network) })
		err = errors.Join(err, inner)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up multicast: %w", err), conn.Close())
	}
	return conn, nil
}

// setMulticast: a socket is to get what its own interface hears, nodes on this
// machine are to hear each other, and RFC 6762 section 11 wants 255 hops.
func setMulticast(fd int, network string) error {
	if network == "udp4" {
		return errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0),
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 255),
		)
	}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL, 0),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255),
	)
}
