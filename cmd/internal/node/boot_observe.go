package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/image/assess"
	"github.com/kairos-io/kairos/image/assess/host"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/systemd"
)

// observe looks at the machine once. ask: also at who answers below the
// overlay, which takes some seconds and matters only after the limit.
func (b *bootJudge) observe(ctx context.Context, ask bool) (assess.Facts, error) {
	units, err := bootUnits(ctx)
	if err != nil {
		return assess.Facts{}, err
	}
	network, err := host.Look(b.f.root)
	if err != nil {
		return assess.Facts{}, err
	}
	f := assess.Facts{Units: units, Cards: network.Cards}
	b.observeConfig(&f)
	n := askLocal(ctx, b.f.sockets)
	n.facts(&f, b.expect)
	if !ask {
		return f, nil
	}
	var dialer net.Dialer
	if b.expect != nil {
		if f.Heard, err = network.Ask(ctx, dialer.DialContext, b.expect.Probes); err != nil {
			return f, err
		}
	}
	if server, ok := n.serverAddr(); ok && !f.K3s.Ready {
		f.K3s.API = host.Try(ctx, dialer.DialContext, netip.AddrPortFrom(server, k3s.APIPort))
	}
	return f, nil
}

// bootUnits are the units whose state explains what is missing.
func bootUnits(ctx context.Context) ([]assess.Unit, error) {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	list, err := systemd.Units(ctx, assess.UnitConfig, assess.UnitOverlay, assess.UnitAgent, assess.UnitContainerd, assess.UnitNetworkd)
	if err != nil {
		return nil, err
	}
	out := make([]assess.Unit, 0, len(list))
	for _, u := range list {
		out = append(out, assess.Unit(u))
	}
	return out, nil
}

// observeConfig takes the service manager's word on whether the configuration
// was accepted, and looks for the reason itself.
func (b *bootJudge) observeConfig(f *assess.Facts) {
	i := slices.IndexFunc(f.Units, func(u assess.Unit) bool { return u.Name == assess.UnitConfig })
	switch f.Units[i].Active {
	case assess.UnitActive:
		f.Config = assess.ConfigTaken
	case "failed":
		f.Config, f.ConfigWhy = assess.ConfigRefused, b.refusal()
	}
}

func (b *bootJudge) refusal() string {
	files, err := config.Sources(b.f.root)
	if err == nil {
		_, err = config.Load(files...)
	}
	if err == nil {
		return "kairos-config.service failed"
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	return cli.OneLine(first)
}

// facts is what the daemons say, as the judge needs it.
func (n *localNode) facts(f *assess.Facts, e *assess.Expect) {
	f.Overlay, f.Agent = n.overlayState(e), assess.Daemon{Up: n.agentErr == nil}
	if n.agentErr != nil {
		f.Agent.Why = n.agentErr.Error()
	}
	f.Nodes = len(n.connected())
	f.K3s = assess.K3s{
		Disabled: n.agent.Disabled(), Running: n.agent.K3sRunning, Ready: n.agent.Ready, Why: n.agent.Cluster.Waiting,
	}
	_, f.K3s.ServerConnected = n.serverAddr()
}

// overlayState: the overlay is well when it answers, has its address, and has no
// trouble that it did not have before.
func (n *localNode) overlayState(e *assess.Expect) assess.Daemon {
	switch {
	case n.overlayErr != nil:
		return assess.Daemon{Why: n.overlayErr.Error()}
	case len(n.status.Addresses) == 0:
		return assess.Daemon{Why: "it has no address yet"}
	}
	for _, c := range n.status.Conditions {
		if c.Severity == severityError && (e == nil || !slices.Contains(e.Conditions, c.Code)) {
			return assess.Daemon{Why: c.Text}
		}
	}
	return assess.Daemon{Up: true}
}

// serverAddr is the overlay address of a connected server of this machine's
// cluster other than itself.
func (n *localNode) serverAddr() (netip.Addr, bool) {
	for _, o := range n.connected() {
		if a := ipv4(o); n.isServer(o) && a.IsValid() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// releaseLock gives the cluster's upgrade lock back if this machine held it.
// Where that fails, the lock ends by itself.
func (b *bootJudge) releaseLock(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cli.AskTimeout)
	defer cancel()
	c := api.NewClient(b.f.agent)
	defer c.CloseIdle()
	if err := c.Call(ctx, api.Exchange{Method: http.MethodDelete, Path: "/control/v1/lock"}); err != nil && !cli.Unreachable(err) {
		b.env.Say("boot check: %v", fmt.Errorf("release the upgrade lock: %w", err))
	}
}
