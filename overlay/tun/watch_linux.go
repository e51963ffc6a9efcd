package tun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watcher listens to what the kernel says about links, addresses and routes.
type watcher struct {
	socket  *nl.NetlinkSocket
	index   uint32        // of the interface
	changed chan struct{} // holds a token while there is something to look at
	done    chan struct{} // closed when nobody listens any more
}

// newWatcher listens in the network namespace of the calling thread.
func newWatcher(index int) (*watcher, error) {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("listen to the kernel's news: %w", err)
	}
	w := &watcher{socket: socket, index: uint32(index), changed: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w, nil
}

func (w *watcher) run() {
	defer close(w.done)
	for {
		messages, _, err := w.socket.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS): // news were lost: that is news
		case err != nil: // the socket was closed
			return
		case !slices.ContainsFunc(messages, w.concerns):
			continue
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// concerns reports whether a message is about the interface, or about a route that
// somebody else has made: pods come and go without a word about either.
func (w *watcher) concerns(m syscall.NetlinkMessage) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR:
		// Both struct ifinfomsg and struct ifaddrmsg have the index at byte 4.
		return len(m.Data) >= 8 && binary.NativeEndian.Uint32(m.Data[4:]) == w.index
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		const protocol = 5 // of struct rtmsg
		if len(m.Data) <= protocol {
			return false
		}
		p := netlink.RouteProtocol(m.Data[protocol])
		deleted := m.Header.Type == unix.RTM_DELROUTE
		return deleted || p != protoAddr && p != protoRoute
	}
	return false
}

func (w *watcher) close() {
	w.socket.Close()
	<-w.done
}

// Changed receives a value when the kernel's view of the interface, or a route of the
// host, may have changed: the caller then sets again what should be there. There is
// one channel, for one reader; several changes may share one value.
func (i *Interface) Changed() <-chan struct{} { return i.watcher.changed }

// Shadows lists the host's own routes that take packets for a part of the networks
// away from the interface, since they are more specific: in the main table, sorted.
func (i *Interface) Shadows(networks []netip.Prefix) ([]Shadow, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.opened(); err != nil {
		return nil, fmt.Errorf("look for other routes: %w", err)
	}
	list, err := i.nl.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("look for other routes: %w", err)
	}
	var out []Shadow
	for _, r := range list {
		if r.Dst == nil || r.LinkIndex == i.link.Attrs().Index {
			continue
		}
		p := prefixOf(r.Dst)
		if inside := func(n netip.Prefix) bool { return p.Bits() > n.Bits() && n.Contains(p.Addr()) }; !slices.ContainsFunc(networks, inside) {
			continue
		}
		s := Shadow{Prefix: p}
		if link, err := i.nl.LinkByIndex(r.LinkIndex); err == nil { // or it has gone meanwhile
			s.Interface = link.Attrs().Name
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Shadow) int { return a.Prefix.Compare(b.Prefix) })
	return out, nil
}
