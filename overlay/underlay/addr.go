package underlay

import (
	"net"
	"net/netip"
	"slices"
)

// addrPortOf is what a socket of the standard library says.
func addrPortOf(a net.Addr) netip.AddrPort {
	var at netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		at = a.AddrPort()
	case *net.TCPAddr:
		at = a.AddrPort()
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// family is how package net names an address family behind "udp" and "tcp".
func family(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// choose picks the local address from which to reach a remote one, by its place in
// locals: the one that the kernel would take, which source asks for, or else one that
// leaves the choice to the kernel; -1 where there is none.
func choose(locals []netip.Addr, remote netip.Addr, source func() netip.Addr) int {
	ofFamily := func(a netip.Addr) bool { return a.Is4() == remote.Is4() }
	bound := slices.ContainsFunc(locals, func(a netip.Addr) bool { return ofFamily(a) && !a.IsUnspecified() })
	if bound {
		if i := slices.Index(locals, source()); i >= 0 {
			return i
		}
	}
	return slices.IndexFunc(locals, func(a netip.Addr) bool { return ofFamily(a) && a.IsUnspecified() })
}

// sourceFor asks the kernel from which address it would send to a remote one, and is
// invalid where there is no way. Nothing is sent.
func sourceFor(remote netip.Addr) netip.Addr {
	c, err := net.DialUDP("udp"+family(remote), nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(remote, 9)))
	if err != nil {
		return netip.Addr{}
	}
	at := addrPortOf(c.LocalAddr())
	// It was only asked for its name.
	_ = c.Close()
	return at.Addr()
}
