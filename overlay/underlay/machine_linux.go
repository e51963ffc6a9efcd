package underlay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// afar are addresses that only a default route leads to; nothing is sent there.
var afar = []netip.Addr{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("2606:4700:4700::1111")}

// up are the flags of a link that change who can be reached over it.
const up = unix.IFF_UP | unix.IFF_RUNNING

// unusable are the flags of an address that cannot be used yet, or not at all.
const unusable = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED

// sleepClock is how far the clock that goes on while the machine sleeps is ahead of the
// one that does not.
func sleepClock() time.Duration {
	read := func(id int32) time.Duration {
		var t unix.Timespec
		if unix.ClockGettime(id, &t) != nil {
			return 0
		}
		return time.Duration(t.Nano())
	}
	return read(unix.CLOCK_BOOTTIME) - read(unix.CLOCK_MONOTONIC)
}

// readCards reads the interfaces and their addresses.
func readCards() ([]card, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list links: %w", err)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	routed := make(map[int]bool)
	for _, a := range afar {
		// Without a default route there is an error instead.
		routes, err := netlink.RouteGet(net.IP(a.AsSlice()))
		if err == nil && len(routes) > 0 {
			routed[routes[0].LinkIndex] = true
		}
	}
	var cards []card
	for _, l := range links {
		c := cardOf(l)
		c.routed = routed[c.index]
		for _, a := range addrs {
			if a.LinkIndex == c.index && a.IPNet != nil && a.Flags&unusable == 0 {
				addr := addrOf(a.IP)
				c.addrs = append(c.addrs, cardAddr{addr: addr, passing: passing(addr, uint32(a.Flags))})
			}
		}
		cards = append(cards, c)
	}
	return cards, nil
}

// passing reads the flags of an address. What says that one of IPv6 is temporary says
// something else of one of IPv4.
func passing(a netip.Addr, flags uint32) bool {
	return flags&unix.IFA_F_DEPRECATED != 0 || a.Is6() && flags&unix.IFA_F_TEMPORARY != 0
}

// cardOf takes what matters of a link.
func cardOf(l netlink.Link) card {
	a := l.Attrs()
	c := card{
		index: a.Index, master: a.MasterIndex, kind: l.Type(),
		loopback: a.RawFlags&unix.IFF_LOOPBACK != 0, carrier: a.RawFlags&up == up,
	}
	switch c.kind {
	case "device": // the library's word for hardware
		c.kind = ""
	case "tuntap":
		c.kind = "tun"
	}
	return c
}

// follow listens to what the kernel tells until ctx ends or that fails.
func (m *machine) follow(ctx context.Context, changed func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "netlink")
	stop := context.AfterFunc(ctx, func() { _ = file.Close() }) // ends the read
	defer func() {
		if stop() {
			_ = file.Close() // of which nothing is wanted any more
		}
	}()
	groups := unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: uint32(groups)}); err != nil {
		return fmt.Errorf("subscribe to changes: %w", err)
	}
	v, err := readView()
	if err != nil {
		return err
	}
	m.outdated(true)
	buf := make([]byte, 64<<10)
	for {
		n, err := file.Read(buf)
		if errors.Is(err, unix.ENOBUFS) { // some were lost
			if v, err = readView(); err != nil {
				return err
			}
			changed()
			continue
		}
		if err != nil {
			return fmt.Errorf("read changes: %w", err)
		}
		matters, err := v.read(buf[:n])
		if err != nil {
			m.log.Debug("cannot read what the kernel tells", "err", err)
		}
		if matters || err != nil {
			changed()
		}
	}
}

// readView reads what there is now.
func readView() (*view, error) {
	cards, err := readCards()
	if err != nil {
		return nil, err
	}
	v := newView()
	for _, c := range cards {
		flags := uint32(0)
		if c.carrier {
			flags = up
		}
		for _, a := range c.addrs {
			v.addr(addrAt{c.index, a.addr}, addrState{passing: a.passing})
		}
		v.link(c.index, linkState{kind: c.kind, loopback: c.loopback, flags: flags})
	}
	return v, nil
}

// read takes messages of the kernel, and reports whether one of them matters.
func (v *view) read(b []byte) (matters bool, err error) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return false, err
	}
	for _, msg := range messages {
		news := false
		var err error
		switch msg.Header.Type {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			news, err = v.readLink(msg)
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			news, err = v.readAddr(msg)
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			news, err = v.readRoute(msg)
		}
		if err != nil {
			return true, err
		}
		matters = matters || news
	}
	return matters, nil
}

func (v *view) readLink(msg syscall.NetlinkMessage) (bool, error) {
	if len(msg.Data) < unix.SizeofIfInfomsg {
		return false, unix.EBADMSG
	}
	if nl.DeserializeIfInfomsg(msg.Data).Family == unix.AF_BRIDGE { // a port of a bridge
		return false, nil
	}
	l, err := netlink.LinkDeserialize(nil, msg.Data)
	if err != nil {
		return false, fmt.Errorf("read link: %w", err)
	}
	c := cardOf(l)
	if msg.Header.Type == unix.RTM_DELLINK {
		return v.noLink(c.index), nil
	}
	flags := uint32(0)
	if c.carrier {
		flags = up
	}
	return v.link(c.index, linkState{kind: c.kind, loopback: c.loopback, flags: flags}), nil
}

func (v *view) readAddr(msg syscall.NetlinkMessage) (bool, error) {
	if len(msg.Data) < unix.SizeofIfAddrmsg {
		return false, unix.EBADMSG
	}
	head := nl.DeserializeIfAddrmsg(msg.Data)
	attrs, err := nl.ParseRouteAttrAsMap(msg.Data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return false, fmt.Errorf("read address: %w", err)
	}
	flags := uint32(head.Flags)
	if long := attrs[unix.IFA_FLAGS].Value; len(long) == 4 {
		flags = nl.NativeEndian().Uint32(long)
	}
	value := attrs[unix.IFA_LOCAL].Value
	if value == nil { // of IPv6
		value = attrs[unix.IFA_ADDRESS].Value
	}
	at := addrAt{int(head.Index), addrOf(value)}
	if msg.Header.Type == unix.RTM_DELADDR || flags&unusable != 0 {
		return v.noAddr(at), nil
	}
	return v.addr(at, addrState{passing: passing(at.addr, flags)}), nil
}

func (v *view) readRoute(msg syscall.NetlinkMessage) (bool, error) {
	if len(msg.Data) < unix.SizeofRtMsg {
		return false, unix.EBADMSG
	}
	head := nl.DeserializeRtMsg(msg.Data)
	attrs, err := nl.ParseRouteAttrAsMap(msg.Data[unix.SizeofRtMsg:])
	if err != nil {
		return false, fmt.Errorf("read route: %w", err)
	}
	r := routeNews{
		bits: int(head.Dst_len), max: 128, kernel: head.Protocol == unix.RTPROT_KERNEL,
		local: head.Table == unix.RT_TABLE_LOCAL || head.Type == unix.RTN_MULTICAST,
	}
	if head.Family == unix.AF_INET {
		r.max = 32
	}
	if link := attrs[unix.RTA_OIF].Value; len(link) == 4 {
		r.link = int(nl.NativeEndian().Uint32(link))
	}
	return v.route(r), nil
}
