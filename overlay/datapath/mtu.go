package datapath

// Packet sizes in bytes.
const (
	// DefaultMTU leaves room for IPv6, UDP, and our header and seal within an Ethernet frame.
	DefaultMTU = 1420
	// MinMTU is what IPv6 needs (RFC 8200, section 5): every path carries it, in two
	// datagrams if it must.
	MinMTU = 1280
	// MaxMTU is the largest that the configuration offers.
	MaxMTU = 9000
)

// MTU decides the largest packet on the overlay, and nothing else does:
// override (overlay.mtu) within MinMTU..MaxMTU, or DefaultMTU where it is 0.
// The path to a peer may take less: PathInfo.MTU.
func MTU(override int) int {
	if override == 0 {
		return DefaultMTU
	}
	return min(max(override, MinMTU), MaxMTU)
}
