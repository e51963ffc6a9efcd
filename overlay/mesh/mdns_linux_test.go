package mesh

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/overlaytest/netns"
)

// The topology: one network namespace with one link, on which multicast loops
// back to the machine; its other end only gives it a carrier.
//
//	node a :port --+
//	               +-- lan0 10.77.0.1/24, fd77::1/64 ---veth--- lan1
//	node b :port --+
var lan = []string{
	"link set lo up",
	"link add lan0 type veth peer name lan1",
	"link set lan1 up",
	"link set lan0 up",
	"addr add 10.77.0.1/24 dev lan0",
	"addr add fd77::1/64 dev lan0 nodad",
	"route add 224.0.0.0/4 dev lan0",
}

// Two nodes that know nothing but the token find each other within a second.
func TestMDNS(t *testing.T) {
	if netns.Outside(t) {
		return
	}
	netns.IP(t, lan...)
	for _, addr := range []string{"10.77.0.1:0", "[fd77::1]:0", "0.0.0.0:0"} {
		t.Run(addr, func(t *testing.T) {
			listen := []netip.AddrPort{netip.MustParseAddrPort(addr)}
			soon(t, "found by mDNS and connected", time.Second, func() time.Duration {
				keys := testKeys(t)
				begin := time.Now()
				a := start(t, Config{Keys: keys, Listen: listen, MDNS: true})
				b := start(t, Config{Keys: keys, Listen: listen, MDNS: true})
				stranger := start(t, Config{Keys: testKeys(t), Listen: listen, MDNS: true})
				events, cancel := a.Events()
				defer cancel()
				await(t, events, PeerUp, b.ID())
				took := time.Since(begin)
				if n := stranger.Stats().Members; n != 0 {
					t.Errorf("the node of another network heard of %d members", n)
				}
				return took
			})
		})
	}
}

// A machine without IPv6 does without.
func TestNoIPv6(t *testing.T) {
	if netns.Outside(t) {
		return
	}
	netns.IP(t, "link set lo up")
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	both := []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0"), netip.MustParseAddrPort("[::]:0")}
	m := start(t, Config{Keys: testKeys(t), Listen: both})
	for _, a := range m.Underlay() {
		if !strings.HasPrefix(a.String(), "127.0.0.1:") {
			t.Errorf("announces %s", a)
		}
	}
}
