package mesh

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	p2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	mss "github.com/multiformats/go-multistream"
)

// maxUnderlay bounds how many addresses a node announces.
const maxUnderlay = 16

// multiaddr names an address for a transport.
func multiaddr(addr netip.AddrPort, name string) (ma.Multiaddr, error) {
	family := "ip4"
	if addr.Addr().Unmap().Is6() {
		family = "ip6"
	}
	ip := addr.Addr().Unmap()
	head := "/" + family + "/" + ip.WithZone("").String()
	if zone := ip.Zone(); zone != "" {
		head = "/ip6zone/" + zone + head
	}
	tail := fmt.Sprintf("/tcp/%d", addr.Port())
	if name == quicName {
		tail = fmt.Sprintf("/udp/%d/quic-v1", addr.Port())
	}
	return ma.NewMultiaddr(head + tail)
}

func addrPortOfMulti(a ma.Multiaddr) netip.AddrPort {
	n, err := manet.ToNetAddr(a)
	if err != nil {
		return netip.AddrPort{}
	}
	return addrPortOf(n)
}

func addrPortOf(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	default:
		return ap
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func remoteOf(c transport.CapableConn) netip.AddrPort { return endOf(c.RemoteMultiaddr()) }

// endOf is one end of a connection.
func endOf(a ma.Multiaddr) netip.AddrPort {
	// /quic-v1 has no net.Addr; the UDP part before it has.
	if head, tail := ma.SplitLast(a); tail != nil && tail.Protocol().Code == ma.P_QUIC_V1 {
		a = head
	}
	return addrPortOfMulti(a)
}

func transportOf(c transport.CapableConn) string {
	if _, err := c.RemoteMultiaddr().ValueForProtocol(ma.P_QUIC_V1); err == nil {
		return quicName
	}
	return tcpName
}

// selectTLS is the first exchange of a libp2p TCP connection.
func selectTLS(c net.Conn) error {
	_, err := mss.SelectOneOf([]protocol.ID{p2ptls.ID}, c)
	return err
}

// acceptable reports whether an address may be underlay. The overlay's own
// ranges may not: a tunnel inside itself carries nothing.
func (m *Mesh) acceptable(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range m.exclude {
		if p.Contains(addr) {
			return false
		}
	}
	return true
}

// dialable keeps the addresses that may be dialled.
func (m *Mesh) dialable(addrs []netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range addrs {
		ip := a.Addr().Unmap()
		if !ip.IsValid() || a.Port() == 0 || ip.IsUnspecified() || ip.IsMulticast() || !m.acceptable(ip) {
			continue
		}
		if a = netip.AddrPortFrom(ip, a.Port()); !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// Underlay returns the addresses, each for QUIC and TCP, at which other machines
// may reach this node, as its record announces them.
func (m *Mesh) Underlay() []netip.AddrPort {
	local, err := localAddrs()
	if err != nil {
		m.log.Warn("cannot read this machine's addresses", "err", err)
	}
	var out []netip.AddrPort
	add := func(a netip.AddrPort) {
		if m.announceable(a.Addr()) && !slices.Contains(out, a) && len(out) < maxUnderlay {
			out = append(out, a)
		}
	}
	for _, b := range m.under.bound {
		if !b.Addr().IsUnspecified() {
			add(b)
			continue
		}
		for _, ip := range local {
			if ip.Is4() == b.Addr().Is4() {
				add(netip.AddrPortFrom(ip, b.Port()))
			}
		}
	}
	return out
}

func (m *Mesh) announceable(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return m.cfg.Loopback && m.acceptable(ip)
	}
	return ip.IsGlobalUnicast() && m.acceptable(ip)
}

// localAddrs returns the machine's unicast addresses in a stable order.
func localAddrs() ([]netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	var out []netip.Addr
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(n.IP); ok {
			out = append(out, ip.Unmap())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), err
}
