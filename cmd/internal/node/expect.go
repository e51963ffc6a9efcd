package node

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/image/assess"
	"github.com/kairos-io/kairos/image/assess/host"
	"github.com/kairos-io/kairos/overlay/api"
)

// maxProbes bounds how many places are noted for the time after an upgrade.
const maxProbes = 16

// gatewayPort: most routers of small networks serve names, and the others
// refuse. Either is an answer.
const gatewayPort = 53

// onDisk is what is written on the machine's disk of what it does when nothing
// is wrong: it is known whoever answers at the moment.
type onDisk struct {
	configured bool           // this version takes the configuration
	cluster    bool           // the agent runs k3s wherever it can
	server     bool           // as the control plane
	earlier    *assess.Expect // what was noted for the same system; nil: nothing
}

// readDisk looks at the machine below the root.
func readDisk(root string) onDisk {
	c, found, err := givenConfig(root)
	in := membershipOf(root)
	d := onDisk{configured: found && err == nil}
	d.cluster = in.running && (!d.configured || c.Cluster.Enabled)
	d.server = d.cluster && in.role == store.Server
	return d
}

// noteExpect looks at this machine as it is before it is given another system:
// what the boot check will want back. It changes nothing, asks the places that
// it notes once, and takes up to ten seconds where some do not answer, and half a
// minute where a daemon does not that should. network is host.Look's.
func noteExpect(ctx context.Context, s sockets, network host.Network, disk onDisk) (assess.Expect, error) {
	n, err := askUntil(ctx, s, disk, func(n *localNode) bool { return known(n.overlayErr) && known(n.agentErr) })
	if err != nil {
		return assess.Expect{}, err
	}
	e := n.expect(time.Now(), disk)
	for _, c := range network.Cards {
		e.NICs = append(e.NICs, c.NIC())
	}
	var dialer net.Dialer
	heard, err := network.Ask(ctx, dialer.DialContext, probes(n, network.Gateways))
	if err != nil {
		return assess.Expect{}, err
	}
	for _, h := range heard {
		h.Probe.Answers = h.Answer.There()
		e.Probes = append(e.Probes, h.Probe)
	}
	return e.Recall(disk.earlier, n.silence()), nil
}

func (n *localNode) silence() assess.Silence {
	return assess.Silence{Overlay: n.overlayErr != nil, Agent: n.agentErr != nil}
}

// expect is the part that the daemons tell, and the disk where the agent does not.
// That a node was ready is nowhere on it.
func (n *localNode) expect(now time.Time, disk onDisk) assess.Expect {
	cluster := n.agent.Cluster
	e := assess.Expect{
		When: now, Configured: disk.configured || n.overlayErr == nil || n.agentErr == nil, Mesh: len(n.connected()) > 0,
		Cluster: cluster.Role != "" && cluster.Phase == string(store.Running) && n.agent.K3sRunning,
		Ready:   n.agent.Ready, Server: cluster.Role == string(store.Server),
	}
	if n.agentErr != nil {
		e.Cluster, e.Server = disk.cluster, disk.server
	}
	for _, c := range n.status.Conditions {
		if c.Severity == severityError {
			e.Conditions = append(e.Conditions, c.Code)
		}
	}
	return e
}

// severityError is the severity of a condition that keeps the overlay from working.
const severityError = "error"

// probes are the places whose answer will tell an outage from a broken system:
// the gateways, and where the connected nodes are reached, the server first.
func probes(n localNode, gateways []netip.Addr) []assess.Probe {
	var out []assess.Probe
	for _, g := range gateways {
		out = append(out, assess.Probe{Name: "the gateway", Addr: netip.AddrPortFrom(g, gatewayPort), Gateway: true})
	}
	nodes := n.connected()
	slices.SortStableFunc(nodes, func(a, b api.Node) int { return cmp.Compare(rankOf(n, a), rankOf(n, b)) })
	for _, o := range nodes {
		if p, ok := n.probe(o); ok {
			out = append(out, p)
		}
	}
	return slices.Clip(out[:min(len(out), maxProbes)])
}

func rankOf(n localNode, o api.Node) int {
	if n.isServer(o) {
		return 0
	}
	return 1
}

// probe is where a connected node is reached. The port of a connection that it
// opened itself is not the one it listens on, so its own announcement of the
// same address is better where there is one.
func (n *localNode) probe(o api.Node) (assess.Probe, bool) {
	at, err := netip.ParseAddrPort(o.Endpoint)
	if err != nil {
		return assess.Probe{}, false
	}
	p := assess.Probe{Name: o.Name, Addr: at, Server: n.isServer(o)}
	for _, r := range n.records {
		if r.ID != o.ID {
			continue
		}
		for _, u := range r.Underlay {
			if a, err := netip.ParseAddrPort(u); err == nil && a.Addr() == at.Addr() {
				p.Addr, p.Own = a, true
				return p, true
			}
		}
	}
	return p, true
}
