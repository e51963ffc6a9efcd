package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// checkPeer accepts host:port, [v6]:port and multiaddresses. What a
// multiaddress means in full is for the mesh to say; here its form is checked,
// so that a slip of the pen is told before anything starts.
func checkPeer(s string) (reason, suggest string) {
	if strings.HasPrefix(s, "/") {
		return checkMultiaddr(s)
	}
	bad := fmt.Sprintf("%q is not host:port, such as %s, nor a multiaddress", shorten(s), examplePeer)
	if _, rest, ok := strings.Cut(s, "://"); ok {
		return bad, rest
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
			return bad, netip.AddrPortFrom(a, 4171).String()
		}
		if isHost(s) {
			return bad, s + ":4171"
		}
		return bad, ""
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Sprintf("%q: the port must be from 1 to 65535", shorten(s)), ""
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.IsUnspecified() || a.IsMulticast() {
			return fmt.Sprintf("%q is not the address of a machine", shorten(s)), ""
		}
		return "", ""
	}
	if !isHost(host) {
		return bad, ""
	}
	return "", ""
}

// isHost reports whether s may be a host name (RFC 1123, section 2.1, and the
// underscores that people use).
func isHost(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if !isLabel(strings.ReplaceAll(strings.ToLower(l), "_", "a")) {
			return false
		}
	}
	// Four numbers that did not parse as an address are a mistyped address, not a name.
	return strings.ContainsFunc(labels[len(labels)-1], func(r rune) bool { return r < '0' || r > '9' })
}

func checkMultiaddr(s string) (reason, suggest string) {
	example := ", such as /ip4/192.0.2.7/udp/4171/quic-v1"
	parts := strings.Split(s, "/")[1:]
	bad := fmt.Sprintf("%q is not a multiaddress that can be dialled%s", shorten(s), example)
	if len(parts) < 4 {
		return bad, ""
	}
	host, transport := parts[0], parts[2]
	switch addr, err := netip.ParseAddr(parts[1]); host {
	case "ip4":
		if err != nil || !addr.Is4() {
			return bad, ""
		}
	case "ip6":
		if err != nil || !addr.Is6() {
			return bad, ""
		}
	case "dns", "dns4", "dns6":
		if !isHost(parts[1]) {
			return bad, ""
		}
	default:
		return bad, ""
	}
	if n, err := strconv.ParseUint(parts[3], 10, 16); err != nil || n == 0 || !slices.Contains([]string{"udp", "tcp"}, transport) {
		return bad, ""
	}
	rest := parts[4:]
	if transport == "udp" {
		if len(rest) == 0 || rest[0] != "quic-v1" {
			return fmt.Sprintf("%q: a udp address must go on with /quic-v1", shorten(s)), "/" + strings.Join(parts[:4], "/") + "/quic-v1"
		}
		rest = rest[1:]
	}
	if len(rest) == 0 || len(rest) == 2 && rest[0] == "p2p" && rest[1] != "" {
		return "", ""
	}
	return bad, ""
}
