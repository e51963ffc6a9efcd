package datapath

import (
	"encoding/binary"
	"net/netip"
)

// Header sizes in bytes.
const (
	minIPv4 = 20 // RFC 791, without options
	minIPv6 = 40 // RFC 8200
)

// parse returns the ends of an IP packet. It reports false unless pkt is one
// whole packet: its own length must be the number of its bytes. That holds for
// whatever a kernel sends, so it also tells when a stream of frames lost step.
func parse(pkt []byte) (src, dst netip.Addr, ok bool) {
	if len(pkt) < minIPv4 {
		return src, dst, false
	}
	switch pkt[0] >> 4 {
	case 4:
		header := int(pkt[0]&0x0f) * 4
		total := int(binary.BigEndian.Uint16(pkt[2:]))
		if header < minIPv4 || header > total || total != len(pkt) {
			return src, dst, false
		}
		return netip.AddrFrom4([4]byte(pkt[12:16])), netip.AddrFrom4([4]byte(pkt[16:20])), true
	case 6:
		if len(pkt) < minIPv6 || minIPv6+int(binary.BigEndian.Uint16(pkt[4:])) != len(pkt) {
			return src, dst, false
		}
		return netip.AddrFrom16([16]byte(pkt[8:24])), netip.AddrFrom16([16]byte(pkt[24:40])), true
	}
	return src, dst, false
}

// carried reports whether the overlay carries packets to dst: to one host, and
// not only within a link.
func carried(dst netip.Addr) bool {
	return !dst.IsMulticast() && !dst.IsLinkLocalUnicast() && !dst.IsUnspecified() && dst != broadcast
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
