package identity

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"

	"github.com/kairos-io/kairos/overlay/secret"
)

// ErrNetwork is returned, wrapped, for an overlay range that cannot be used.
var ErrNetwork = errors.New("unusable overlay network")

// Specification constants: every node of a mesh must derive the same addresses.
const (
	labelV6Network = "kairos/v1/overlay-v6-network"
	labelV4Network = "kairos/v1/overlay-v4-network"
	labelV6Host    = "kairos/v1/overlay-v6-host"
	labelV4Host    = "kairos/v1/overlay-v4-host"
	// hostsPerBlock are the last octets 1..254 of each /24.
	hostsPerBlock = 254
)

// avoided lists the second octets of 10/8 that the token never chooses,
// because something else on a machine of this kind tends to sit there.
var avoided = [][2]uint8{
	{0, 1},     // home routers, VPCs, early address plans
	{4, 4},     // nerdctl
	{8, 8},     // OpenVPN
	{10, 10},   // the most popular hand-picked LAN
	{22, 22},   // containernetworking examples
	{32, 47},   // Weave; k3s pods (42) and services (43)
	{85, 85},   // CRI-O
	{88, 89},   // podman
	{96, 111},  // kubeadm services (10.96.0.0/12)
	{152, 152}, // MicroK8s services
	{233, 233}, // Kubespray
	{244, 244}, // kubeadm pods, flannel
	{255, 255}, // its broadcast confuses old software
}

// clusterRanges are k3s' pod and service ranges, which overlay addresses must
// never fall into, not even on request.
var clusterRanges = []netip.Prefix{
	netip.MustParsePrefix("10.42.0.0/16"),
	netip.MustParsePrefix("10.43.0.0/16"),
}

// unusable are IPv4 ranges with a meaning of their own (RFC 6890).
var unusable = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/3"), // multicast and class E
}

// Network is the pair of ranges that one mesh uses. It is a pure function of
// the token, so that every member knows it without asking.
type Network struct {
	V4 netip.Prefix // inside 10/8 unless overridden
	V6 netip.Prefix // unique local (RFC 4193), /64
}

// NetworkOf derives the ranges from the token's address seed. A valid override
// replaces the IPv4 range: /8 to /24, without host bits, away from special
// ranges and from the cluster's pod and service ranges. Errors wrap ErrNetwork.
func NetworkOf(seed secret.Key, override netip.Prefix) (Network, error) {
	if seed.IsZero() {
		return Network{}, fmt.Errorf("derive overlay network: no seed: %w", ErrNetwork)
	}
	v6, err := hkdf.Key(sha256.New, seed.Bytes(), nil, labelV6Network, 7)
	if err != nil {
		return Network{}, fmt.Errorf("derive IPv6 network: %w", err)
	}
	// RFC 4193: fd, 40 bits of global ID, 16 bits of subnet.
	network := [16]byte{0: 0xfd}
	copy(network[1:8], v6)
	n := Network{V6: netip.PrefixFrom(netip.AddrFrom16(network), 64)}

	if override != (netip.Prefix{}) {
		if err := checkOverride(override); err != nil {
			return Network{}, err
		}
		n.V4 = override
		return n, nil
	}
	v4, err := hkdf.Key(sha256.New, seed.Bytes(), nil, labelV4Network, 8)
	if err != nil {
		return Network{}, fmt.Errorf("derive IPv4 network: %w", err)
	}
	octets := allowedOctets()
	octet := octets[below(binary.BigEndian.Uint64(v4), uint64(len(octets)))]
	n.V4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, octet}), 16)
	return n, nil
}

// Contains reports whether addr lies in one of the two ranges.
func (n Network) Contains(addr netip.Addr) bool { return n.V4.Contains(addr) || n.V6.Contains(addr) }

// V6Addr returns id's address in the IPv6 range: nobody can choose it, and
// with 64 bits of SHA-256 two members do not meet on one.
func (n Network) V6Addr(id ID) netip.Addr {
	addr := n.V6.Addr().As16()
	for attempt := uint32(0); ; attempt++ {
		sum := hostHash(labelV6Host, n.V6, id, attempt)
		if !reservedInterfaceID(binary.BigEndian.Uint64(sum[:8])) {
			copy(addr[8:], sum[:8])
			return netip.AddrFrom16(addr)
		}
	}
}

// V4Addr returns the attempt-th choice of an IPv4 address for id. Attempt 0 is
// the natural one; whoever loses it to another member takes the next. The last
// octet is never 0 or 255. The zero Network yields the zero Addr.
func (n Network) V4Addr(id ID, attempt uint32) netip.Addr {
	if !n.V4.Addr().Is4() || n.V4.Bits() < 0 || n.V4.Bits() > 24 {
		return netip.Addr{}
	}
	sum := hostHash(labelV4Host, n.V4, id, attempt)
	usable := uint64(hostsPerBlock) << (24 - n.V4.Bits())
	index := below(binary.BigEndian.Uint64(sum[:8]), usable)
	base := n.V4.Masked().Addr().As4()
	host := binary.BigEndian.Uint32(base[:]) + uint32(index/hostsPerBlock)<<8 + uint32(index%hostsPerBlock) + 1
	var addr [4]byte
	binary.BigEndian.PutUint32(addr[:], host)
	return netip.AddrFrom4(addr)
}

func checkOverride(p netip.Prefix) error {
	switch {
	case !p.IsValid() || !p.Addr().Is4():
		return fmt.Errorf("use %s: not an IPv4 range: %w", p, ErrNetwork)
	case p.Bits() < 8 || p.Bits() > 24:
		return fmt.Errorf("use %s: take a length from /8 to /24: %w", p, ErrNetwork)
	case p != p.Masked():
		return fmt.Errorf("use %s: host bits are set, write %s: %w", p, p.Masked(), ErrNetwork)
	}
	for _, r := range clusterRanges {
		if p.Overlaps(r) {
			return fmt.Errorf("use %s: overlaps %s, which the cluster uses for pods or services: %w", p, r, ErrNetwork)
		}
	}
	for _, r := range unusable {
		if p.Overlaps(r) {
			return fmt.Errorf("use %s: overlaps %s, which has a meaning of its own: %w", p, r, ErrNetwork)
		}
	}
	return nil
}

func allowedOctets() []uint8 {
	octets := make([]uint8, 0, 256)
	for o := range 256 {
		if !isAvoided(uint8(o)) {
			octets = append(octets, uint8(o))
		}
	}
	return octets
}

func isAvoided(octet uint8) bool {
	for _, r := range avoided {
		if octet >= r[0] && octet <= r[1] {
			return true
		}
	}
	return false
}

// reservedInterfaceID reports the IPv6 interface identifiers of RFC 5453 that
// routers and anycast use.
func reservedInterfaceID(iid uint64) bool {
	return iid == 0 || iid&^0x7f == 0xfdffffffffffff80 || iid&^0xffffff == 0x02005efffe000000
}

// hostHash is where every host part comes from. The network is part of it, so
// that one key has unrelated addresses in two meshes.
func hostHash(label string, network netip.Prefix, id ID, attempt uint32) [sha256.Size]byte {
	addr := network.Masked().Addr().As16()
	msg := make([]byte, 0, len(label)+1+len(addr)+1+len(id)+4)
	msg = append(msg, label...)
	msg = append(msg, 0)
	msg = append(msg, addr[:]...)
	msg = append(msg, byte(network.Bits()))
	msg = append(msg, id[:]...)
	msg = binary.BigEndian.AppendUint32(msg, attempt)
	return sha256.Sum256(msg)
}

// below scales 64 random bits to 0..n-1 without the bias of a remainder.
func below(random, n uint64) uint64 {
	hi, _ := bits.Mul64(random, n)
	return hi
}
