// Package dns gives the members of the mesh names: <node name>.kairos.internal.
//
// A Zone is built from the members and never changed; a Server answers from the
// current one, on a local address and for its domain alone; Register tells the
// host to ask the server for that domain, through systemd-resolved where it
// runs and by a block in /etc/hosts where it does not.
package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Domain is the domain of all meshes' names.
const Domain = "kairos.internal"

// Host is one member as the zone needs it.
type Host struct {
	ID    identity.ID
	Name  string // one DNS label; others are passed over
	Addrs []netip.Addr
}

// Zone is who has which name: an immutable value, safe for concurrent use.
type Zone struct {
	domain string // canonical: lower case, with the last dot
	names  map[string]identity.ID
	addrs  map[identity.ID][]netip.Addr
}

// BuildZone names hosts below domain. A member has the name that it chose and
// its ID as a name, which nobody else can have. Where two chose one name, the
// lower ID has it, on every node alike.
func BuildZone(domain string, hosts []Host) *Zone {
	z := &Zone{
		domain: dns.CanonicalName(domain),
		names:  make(map[string]identity.ID, 2*len(hosts)),
		addrs:  make(map[identity.ID][]netip.Addr, len(hosts)),
	}
	sorted := slices.SortedFunc(slices.Values(hosts), func(a, b Host) int { return a.ID.Compare(b.ID) })
	for _, h := range sorted {
		if _, twice := z.addrs[h.ID]; twice {
			continue
		}
		z.addrs[h.ID] = slices.Clone(h.Addrs)
		z.names[h.ID.String()] = h.ID
	}
	// After all IDs: no chosen name may be another member's ID.
	for _, h := range sorted {
		label := strings.ToLower(h.Name)
		if _, taken := z.names[label]; !taken && isLabel(label) {
			z.names[label] = h.ID
		}
	}
	return z
}

// isLabel reports whether s is a host name's label (RFC 1123, section 2.1), in lower case.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// covers reports whether the zone has authority for the fully qualified, canonical name.
func (z *Zone) covers(name string) bool { return dns.IsSubDomain(z.domain, name) }

// lookup returns the addresses of a name that the zone covers; the domain
// itself exists and has none.
func (z *Zone) lookup(name string) (addrs []netip.Addr, exists bool) {
	if name == z.domain {
		return nil, true
	}
	id, exists := z.names[strings.TrimSuffix(name, "."+z.domain)]
	return z.addrs[id], exists
}

// hostsLines are the chosen names as lines for a hosts file, sorted: each
// address with the full name and the short one.
func (z *Zone) hostsLines() []string {
	var lines []string
	for label, id := range z.names {
		if label == id.String() {
			continue
		}
		for _, addr := range z.addrs[id] {
			lines = append(lines, addr.String()+" "+label+"."+strings.TrimSuffix(z.domain, ".")+" "+label)
		}
	}
	slices.Sort(lines)
	return lines
}
