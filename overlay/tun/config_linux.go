package tun

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The protocol numbers that mark our routes in the kernel (rtnetlink(7),
// rtm_protocol). They are what a restarted program knows its routes by; two of
// them, so that SetAddrs after a restart leaves the routes of SetRoutes alone.
const (
	protoAddr  netlink.RouteProtocol = 175
	protoRoute netlink.RouteProtocol = 176
)

// addrGenNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h: no address that nobody set.
const addrGenNone = 1

// configure sets what a new or taken-over interface needs, and brings it up.
func (i *Interface) configure(cfg Config) error {
	if err := i.nl.LinkSetMTU(i.link, cfg.MTU); err != nil {
		return explainConfig("set mtu", err)
	}
	// No link-local address: it would send router solicitations and multicast
	// reports to nobody. A host without IPv6 refuses, and needs it not.
	if err := i.nl.LinkSetIP6AddrGenMode(i.link, addrGenNone); err != nil {
		if !isNoIPv6(err) {
			return explainConfig("set ipv6 address mode", err)
		}
		i.noIPv6 = true
	}
	if err := i.nl.LinkSetGSOMaxSegs(i.link, maxSegments(cfg.MTU)); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return explainConfig("set the most segments of a packet", err)
	}
	return i.SetAddrs(cfg.Addrs)
}

// maxSegments is how many segments TCP may hand over in one packet: as many as leave
// with one system call (package socket) when each has its seal and header of up to 32
// bytes. So one read here is one write there, and one write at the other end.
func maxSegments(mtu int) int {
	const sendBytes, sendSegments, perSegment = 65000, 64, 32
	return min(sendBytes/(mtu+perSegment), sendSegments)
}

// up brings the interface up if somebody took it down. The kernel then has dropped
// its routes and IPv6 addresses: they are to be set again.
func (i *Interface) up() error {
	link, err := i.nl.LinkByIndex(i.link.Attrs().Index)
	if err != nil {
		return fmt.Errorf("look at it: %w", err)
	}
	if link.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	return i.nl.LinkSetUp(i.link)
}

// IPv6 reports whether the host lets the interface have IPv6 addresses. Where
// it does not, SetAddrs and SetRoutes pass over IPv6.
func (i *Interface) IPv6() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.noIPv6
}

// SetAddrs brings the interface up, makes addrs its addresses and routes each
// one's network through it. New ones are there before old ones go. It does
// nothing where nothing differs.
func (i *Interface) SetAddrs(addrs []netip.Prefix) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.opened(); err != nil {
		return fmt.Errorf("set addresses: %w", err)
	}
	if err := i.up(); err != nil {
		return explainConfig("bring it up", err)
	}
	have, err := i.addrs()
	if err != nil {
		return fmt.Errorf("set addresses: %w", err)
	}
	want := make([]netip.Addr, 0, len(addrs))
	for _, p := range addrs {
		want = append(want, p.Addr())
	}
	add, del := planAddrs(have, want)
	for _, a := range add {
		if err := i.addAddr(a); err != nil {
			return explainConfig("add address "+a.String(), err)
		}
	}
	// Before the old addresses go: the kernel removes routes along with their source.
	if err := i.setRoutes(networkRoutes(addrs), protoAddr); err != nil {
		return fmt.Errorf("set addresses: %w", err)
	}
	for _, a := range del {
		if err := i.nl.AddrDel(i.link, hostAddr(a)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return explainConfig("remove address "+a.String(), err)
		}
	}
	return nil
}

// SetRoutes makes routes the prefixes that are sent through the interface, next
// to the networks of its addresses. It does nothing where nothing differs.
// ErrRouteTaken, wrapped, means that others were set but the named one is the host's own.
func (i *Interface) SetRoutes(routes []Route) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	err := i.opened()
	if err == nil {
		err = i.setRoutes(routes, protoRoute)
	}
	if err != nil {
		return fmt.Errorf("set routes: %w", err)
	}
	return nil
}

func (i *Interface) opened() error {
	if i.nl == nil {
		return os.ErrClosed
	}
	return nil
}

// addrs lists the interface's addresses without the kernel's own link-local ones.
func (i *Interface) addrs() ([]netip.Addr, error) {
	list, err := i.nl.AddrList(i.link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var addrs []netip.Addr
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		if ip = ip.Unmap(); ok && !ip.IsLinkLocalUnicast() {
			addrs = append(addrs, ip)
		}
	}
	return addrs, nil
}

func (i *Interface) addAddr(a netip.Addr) error {
	if a.Is6() && i.noIPv6 {
		return nil
	}
	err := i.nl.AddrReplace(i.link, hostAddr(a))
	if err != nil && a.Is6() && isNoIPv6(err) {
		i.noIPv6 = true
		return nil
	}
	return err
}

// setRoutes reconciles the routes that carry proto.
func (i *Interface) setRoutes(want []Route, proto netlink.RouteProtocol) error {
	have, err := i.routes(proto)
	if err != nil {
		return err
	}
	change := planRoutes(have, want)
	var errs []error
	do := func(verb string, routes []Route, call func(*netlink.Route) error) {
		for _, r := range routes {
			if r.Prefix.Addr().Is6() && i.noIPv6 {
				continue
			}
			err := call(i.kernelRoute(r, proto))
			switch {
			case err == nil, verb == "remove" && errors.Is(err, unix.ESRCH):
			case errors.Is(err, unix.EEXIST):
				errs = append(errs, fmt.Errorf("%s: %w; see `ip route`, or choose another network (overlay.cidr)", r.Prefix, ErrRouteTaken))
			default:
				errs = append(errs, explainConfig(verb+" route "+r.Prefix.String(), err))
			}
		}
	}
	// RouteAdd and not RouteReplace: replacing would take over a route of the
	// host with the same prefix, and with it its network.
	do("add", change.add, i.nl.RouteAdd)
	do("replace", change.replace, i.nl.RouteReplace)
	do("remove", change.del, i.nl.RouteDel)
	return errors.Join(errs...)
}

// routes lists what proto marks on the interface, in the main table.
func (i *Interface) routes(proto netlink.RouteProtocol) ([]Route, error) {
	filter := &netlink.Route{LinkIndex: i.link.Attrs().Index, Protocol: proto, Table: unix.RT_TABLE_MAIN}
	list, err := i.nl.RouteListFiltered(netlink.FAMILY_ALL, filter,
		netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	routes := make([]Route, 0, len(list))
	for _, r := range list {
		if r.Dst == nil {
			continue // a default route is never ours
		}
		src, _ := netip.AddrFromSlice(r.Src)
		routes = append(routes, Route{Prefix: prefixOf(r.Dst), Src: src.Unmap()})
	}
	return routes, nil
}

func (i *Interface) kernelRoute(r Route, proto netlink.RouteProtocol) *netlink.Route {
	route := &netlink.Route{
		LinkIndex: i.link.Attrs().Index,
		Dst:       ipNet(r.Prefix),
		Protocol:  proto,
		Table:     unix.RT_TABLE_MAIN,
	}
	if r.Prefix.Addr().Is4() {
		route.Scope = netlink.SCOPE_LINK
	}
	if r.Src.IsValid() {
		route.Src = r.Src.AsSlice()
	}
	return route
}

// hostAddr is a as the kernel gets it: alone, usable at once, and without the
// kernel's own route for it.
func hostAddr(a netip.Addr) *netlink.Addr {
	addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, a.BitLen()))}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
	}
	return addr
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf is what the kernel calls a destination.
func prefixOf(n *net.IPNet) netip.Prefix {
	ip, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), ones)
}

// isNoIPv6 tells the answers of a kernel without IPv6, or with IPv6 switched
// off for the interface, from other failures.
func isNoIPv6(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) ||
		errors.Is(err, unix.EACCES)
}

func explainConfig(verb string, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%s: %w: %w; run as root or with CAP_NET_ADMIN", verb, ErrPermission, err)
	}
	return fmt.Errorf("%s: %w", verb, err)
}
