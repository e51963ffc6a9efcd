package underlay

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
	manet "github.com/multiformats/go-multiaddr/net"
	xrate "golang.org/x/time/rate"
)

// limits is libp2p's resource manager, which counts what each address and each peer
// holds, and what all of them do.
type limits struct {
	network.ResourceManager
	// unverified is how many QUIC connections may begin from addresses that nobody has
	// verified; those beyond cost their sender one more round trip, which forged ones fail.
	unverified *xrate.Limiter
}

// newLimits configures libp2p's resource manager. Its defaults (8 connections and one new
// one in 5 s for an IPv4 address) would shut out a site of more than a few nodes behind
// one NAT; admission has the tighter, failure-based limit for strangers.
func newLimits() (*limits, error) {
	all := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: 4096, ConnsInbound: 2048, ConnsOutbound: 2048, FD: 2048, Memory: 512 << 20,
		},
		// Handshakes under way: more than one address alone can hold open.
		Transient: rcmgr.ResourceLimits{
			Conns: 1536, ConnsInbound: 1024, ConnsOutbound: 512, FD: 1024, Memory: 64 << 20,
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: 64, ConnsInbound: 16, ConnsOutbound: 64, FD: 64, Memory: 64 << 20,
		},
	}.Build(rcmgr.DefaultLimits.AutoScale())
	perSite := func(bits, conns int) rcmgr.ConnLimitPerSubnet {
		return rcmgr.ConnLimitPerSubnet{PrefixLength: bits, ConnCount: conns}
	}
	pace := rate.Limit{RPS: 32, Burst: 512}
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(all),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{perSite(32, 256)},
			[]rcmgr.ConnLimitPerSubnet{perSite(56, 256), perSite(48, 1024)}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: []rate.PrefixLimit{
				{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")},
			},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: pace}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: pace}},
				GracePeriod:      time.Minute,
			},
		}))
	if err != nil {
		return nil, fmt.Errorf("set up limits: %w", err)
	}
	return &limits{ResourceManager: m, unverified: xrate.NewLimiter(1000, 1000)}, nil
}

// open counts a connection whose handshake begins. The scope is to be ended by Done,
// which may be called again.
func (l *limits) open(dir network.Direction, t Transport, remote netip.AddrPort) (network.ConnManagementScope, error) {
	var at net.Addr = net.UDPAddrFromAddrPort(remote)
	if t == TCP {
		at = net.TCPAddrFromAddrPort(remote)
	}
	name, err := manet.FromNetAddr(at)
	if err != nil {
		return nil, err
	}
	return l.OpenConnection(dir, t == TCP, name)
}

// verify reports whether the sender of QUIC's first packet has to show first that it is
// where it says.
func (l *limits) verify(from net.Addr) bool {
	return !l.unverified.Allow() || l.VerifySourceAddress(from)
}

// widen asks for memory in which a QUIC connection wants to hold more of what comes.
func widen(scope network.ConnManagementScope, more uint64) bool {
	return scope.ReserveMemory(int(more), network.ReservationPriorityMedium) == nil
}
