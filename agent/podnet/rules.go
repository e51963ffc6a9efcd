package podnet

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
)

// Ruleset returns an nft script that replaces the table "ip kairos" in one
// transaction.
//
// The machine routes between pods, overlay and uplink, but only pods and the
// overlay may use it as a router: otherwise a neighbour on the local network
// could route into the mesh, or reach the services that listen on the overlay
// address, by pointing a static route at this node. What kube-proxy has
// translated (NodePort, LoadBalancer) was published on purpose and passes.
func Ruleset(c Config) string {
	v4 := overlay4(c.Overlay)
	inside := append([]string{c.Pods.String(), c.Services.String()}, v4...)
	if c.Resolver.IsValid() {
		inside = append(inside, c.Resolver.String())
	}
	r := strings.NewReplacer(
		"$IFACE", `"`+c.Interface+`"`, "$BRIDGE", `"`+Bridge+`"`,
		"$INSIDE", strings.Join(inside, ", "), "$PODCIDR", c.PodCIDR.String(), "$ADDRESS", c.Address.String())
	return r.Replace(ruleset)
}

// ruleset has the table declared before it is deleted, because deleting one
// that does not exist would fail the transaction.
const ruleset = `table ip kairos { }
delete table ip kairos
table ip kairos {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname != $BRIDGE ip saddr $PODCIDR ip daddr != { $INSIDE } masquerade
		oifname $IFACE ip saddr != { $ADDRESS, $PODCIDR } snat to $ADDRESS
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		oifname $IFACE tcp flags & (syn|rst) == syn tcp option maxseg size set rt mtu
		iifname $BRIDGE ip saddr != $PODCIDR counter drop
		ct state established,related accept
		iifname { $IFACE, $BRIDGE } accept
		ct status dnat accept
		oifname $IFACE counter drop
		ip daddr { $INSIDE } counter drop
	}
	chain input {
		type filter hook input priority filter; policy accept;
		iifname { "lo", $IFACE, $BRIDGE } accept
		ct state established,related accept
		ct status dnat accept
		ip daddr { $INSIDE } counter drop
	}
}
`

func overlay4(prefixes []netip.Prefix) []string {
	var out []string
	for _, p := range prefixes {
		if p.Addr().Is4() {
			out = append(out, p.Masked().String())
		}
	}
	return out
}

// openForward lets pods through a firewall of the host whose policy is to drop
// what is forwarded (Docker sets it). Rules are appended, so that network
// policies, which come first, keep the last word. A host without iptables has
// no such chain.
func (h Host) openForward(ctx context.Context, c Config) error {
	if _, err := exec.LookPath("iptables"); err != nil && h.Run == nil {
		return nil
	}
	for _, match := range []string{"-s", "-d"} {
		rule := []string{"FORWARD", match, c.Pods.String(), "-m", "comment", "--comment", "kairos pods", "-j", "ACCEPT"}
		if h.run(ctx, "iptables", append([]string{"-w", "-C"}, rule...)...) == nil {
			continue
		}
		if err := h.run(ctx, "iptables", append([]string{"-w", "-A"}, rule...)...); err != nil {
			return fmt.Errorf("let pods through the host's firewall: %w", err)
		}
	}
	return nil
}
