package host

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// Numbers of rtnetlink(7) and netlink headers that package syscall lacks.
const (
	rtmGetNeigh = 30 // RTM_GETNEIGH

	ifaFlagsAttr   = 8    // IFA_FLAGS
	ifaPermanent   = 0x80 // IFA_F_PERMANENT
	ndaDst         = 1    // NDA_DST
	nudReachable   = 0x02 // NUD_REACHABLE
	nudPermanent   = 0x80 // NUD_PERMANENT
	sizeofNdMsg    = 12
	sizeofAttrHead = 4
)

// address is one address of an interface, without link-local and host scope.
type address struct {
	index     int
	prefix    netip.Prefix
	permanent bool // nobody leased or advertised it
}

// message is one answer of a dump: the fixed part and the attributes.
type message struct {
	head  []byte
	attrs map[uint16][]byte
}

// dump asks the kernel for a whole table and splits its messages.
func dump(request, size int) ([]message, error) {
	raw, err := syscall.NetlinkRIB(request, syscall.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("ask the kernel about the network: %w", err)
	}
	list, err := syscall.ParseNetlinkMessage(raw)
	if err != nil {
		return nil, fmt.Errorf("ask the kernel about the network: %w", err)
	}
	var out []message
	for _, m := range list {
		if m.Header.Type == syscall.NLMSG_DONE || len(m.Data) < size {
			continue
		}
		out = append(out, message{m.Data[:size], attributes(m.Data[size:])})
	}
	return out, nil
}

// attributes splits a list of struct rtattr; a torn one ends it.
func attributes(b []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	for len(b) >= sizeofAttrHead {
		n := int(binary.NativeEndian.Uint16(b))
		if n < sizeofAttrHead || n > len(b) {
			break
		}
		out[binary.NativeEndian.Uint16(b[2:])] = b[sizeofAttrHead:n]
		b = b[min((n+3)&^3, len(b)):]
	}
	return out
}

func addresses() ([]address, error) {
	list, err := dump(syscall.RTM_GETADDR, syscall.SizeofIfAddrmsg)
	if err != nil {
		return nil, err
	}
	var out []address
	for _, m := range list {
		if a, ok := parseAddress(m); ok {
			out = append(out, a)
		}
	}
	return out, nil
}

// parseAddress reads struct ifaddrmsg: family, prefix length, flags, scope, index.
func parseAddress(m message) (address, bool) {
	raw := m.attrs[syscall.IFA_LOCAL] // the own end of a point-to-point link
	if raw == nil {
		raw = m.attrs[syscall.IFA_ADDRESS]
	}
	ip, ok := netip.AddrFromSlice(raw)
	if !ok || !ip.IsGlobalUnicast() {
		return address{}, false
	}
	flags := uint32(m.head[2])
	if long := m.attrs[ifaFlagsAttr]; len(long) == 4 {
		flags = binary.NativeEndian.Uint32(long)
	}
	return address{
		index:     int(binary.NativeEndian.Uint32(m.head[4:])),
		prefix:    netip.PrefixFrom(ip, int(m.head[1])),
		permanent: flags&ifaPermanent != 0,
	}, true
}

// gateways are those of the default routes of the main table.
func gateways() ([]netip.Addr, error) {
	list, err := dump(syscall.RTM_GETROUTE, syscall.SizeofRtMsg)
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, m := range list {
		if g, ok := parseGateway(m, zone); ok {
			out = append(out, g)
		}
	}
	return out, nil
}

// parseGateway reads struct rtmsg: family, dst_len, src_len, tos, table, ...
func parseGateway(m message, zone func(index int) string) (netip.Addr, bool) {
	if m.head[1] != 0 || m.head[4] != syscall.RT_TABLE_MAIN {
		return netip.Addr{}, false
	}
	ip, ok := netip.AddrFromSlice(m.attrs[syscall.RTA_GATEWAY])
	if !ok {
		return netip.Addr{}, false
	}
	if oif := m.attrs[syscall.RTA_OIF]; ip.IsLinkLocalUnicast() && len(oif) == 4 {
		ip = ip.WithZone(zone(int(binary.NativeEndian.Uint32(oif))))
	}
	return ip, true
}

// zone is an interface's name; "" for one that is gone.
func zone(index int) string {
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return ""
	}
	return i.Name
}

// neighbours are the addresses whose link-layer address was confirmed just now.
func neighbours() (map[netip.Addr]bool, error) {
	list, err := dump(rtmGetNeigh, sizeofNdMsg)
	if err != nil {
		return nil, err
	}
	out := map[netip.Addr]bool{}
	for _, m := range list {
		if ip, ok := parseNeighbour(m); ok {
			out[ip] = true
		}
	}
	return out, nil
}

// parseNeighbour reads struct ndmsg: family, padding, index, state, flags, type.
// A stale entry proves nothing: who had it may be gone.
func parseNeighbour(m message) (netip.Addr, bool) {
	state := binary.NativeEndian.Uint16(m.head[8:])
	ip, ok := netip.AddrFromSlice(m.attrs[ndaDst])
	return ip, ok && state&(nudReachable|nudPermanent) != 0
}
