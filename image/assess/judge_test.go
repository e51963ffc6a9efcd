package assess

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

const mac = "52:54:00:00:00:01"

var (
	card    = NIC{Name: "eth0", MAC: mac, Carrier: true, Served: true, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24")}}
	gateway = Probe{Name: "the gateway", Addr: netip.MustParseAddrPort("10.0.0.1:53"), Gateway: true, Answers: true}
	alpha   = Probe{Name: "alpha-aaaaaa", Addr: netip.MustParseAddrPort("10.0.0.7:4171"), Server: true, Own: true, Answers: true}
	beta    = Probe{Name: "beta-bbbbbb", Addr: netip.MustParseAddrPort("198.51.100.9:4171"), Own: true, Answers: true}
	gamma   = Probe{Name: "gamma-cccccc", Addr: netip.MustParseAddrPort("203.0.113.1:4171"), Answers: true} // behind a translator
)

// The machines of the table, before their upgrade.
func alone() *Expect { return &Expect{When: noon, Configured: true} }
func wired() *Expect { return &Expect{When: noon, Configured: true, NICs: []NIC{card}} }
func meshed() *Expect {
	return &Expect{When: noon, Configured: true, Mesh: true, NICs: []NIC{card}, Probes: []Probe{gateway, alpha, beta}}
}
func worker() *Expect {
	e := meshed()
	e.Cluster, e.Ready = true, true
	return e
}
func server() *Expect {
	e := worker()
	e.Server = true
	return e
}

// well is a machine on which everything works.
func well() Facts {
	return Facts{
		Config: ConfigTaken, Overlay: Daemon{Up: true}, Agent: Daemon{Up: true}, Nodes: 2,
		K3s:   K3s{Running: true, Ready: true, ServerConnected: true},
		Units: []Unit{{Name: UnitNetworkd, Active: UnitActive}, {Name: UnitContainerd, Active: UnitActive}},
		Cards: []Card{{Name: "ens3", MAC: mac, Up: true, Carrier: true, Setup: "configured", Addrs: card.Addrs}},
	}
}

// with changes the facts of a machine on which everything works.
func with(changes ...func(*Facts)) Facts {
	f := well()
	for _, c := range changes {
		c(&f)
	}
	return f
}

func cutOff(f *Facts)   { f.Nodes, f.K3s.ServerConnected, f.K3s.Ready = 0, false, false }
func notReady(f *Facts) { f.K3s.Ready, f.K3s.Why = false, "kubelet does not answer" }
func noCarrier(f *Facts) {
	f.Cards[0].Carrier, f.Cards[0].Addrs, f.Cards[0].Setup = false, nil, "configuring"
}
func noLease(f *Facts) { f.Cards[0].Addrs, f.Cards[0].Setup = nil, "configuring" }
func setup(state string) func(*Facts) {
	return func(f *Facts) { f.Cards[0].Setup, f.Cards[0].Addrs = state, nil }
}
func unit(u Unit) func(*Facts) { return func(f *Facts) { f.Units = append([]Unit{u}, f.Units...) } }
func heard(p Probe, a Answer) func(*Facts) {
	return func(f *Facts) { f.Heard = append(f.Heard, Heard{Probe: p, Answer: a}) }
}
func onLink(p Probe, a Answer, neighbour bool) func(*Facts) {
	return func(f *Facts) {
		f.Heard = append(f.Heard, Heard{Probe: p, Answer: a, OnLink: true, Neighbour: neighbour})
	}
}

func TestJudge(t *testing.T) {
	early, late := Clock{time.Minute, DefaultLimit}, Clock{DefaultLimit, DefaultLimit}
	tests := []struct {
		name   string
		expect *Expect
		facts  Facts
		clock  Clock
		want   Verdict
		reason string // part of it
	}{
		// Good at once.
		{"a flashed machine that is well", nil, with(cutOff), early, Good, "the overlay and the agent are well"},
		{"a lone machine that never had peers", alone(), with(cutOff), early, Good, "the overlay and the agent are well"},
		{"a lone machine with its network", wired(), with(cutOff), early, Good, "the overlay and the agent are well"},
		{"a lone machine in an outage", wired(), with(cutOff, noCarrier), early, Good, "the overlay and the agent are well"},
		{"a lone machine that somebody has joined meanwhile", wired(), with(func(f *Facts) { f.Cards = nil }), early, Good, "2 nodes connected"},
		{"the mesh is rejoined", meshed(), well(), early, Good, "2 nodes connected"},
		{"a worker is ready again", worker(), well(), early, Good, "Kubernetes calls this node ready"},
		{"one node is enough", worker(), with(func(f *Facts) { f.Nodes = 1 }), early, Good, "1 node connected"},
		{"the cluster was turned off in the configuration", server(), with(func(f *Facts) { f.K3s = K3s{Disabled: true} }), early, Good, "2 nodes connected"},
		{"a node that was not ready before need not be", &Expect{Configured: true, Cluster: true, Server: true}, with(notReady), early, Good, "are well"},
		{"a card without a cable before may be gone", &Expect{Configured: true, Mesh: true, NICs: []NIC{{Name: "eth9", MAC: "52:54:00:00:00:09"}}}, well(), early, Good, ""},

		// Waiting, with the nearest reason.
		{"the configuration is not checked yet", nil, with(func(f *Facts) { f.Config = ConfigPending }), early, Waiting, "waiting for the configuration to be checked"},
		{"the overlay comes first", worker(), with(cutOff, func(f *Facts) { f.Overlay = Daemon{Why: "nothing is listening there"} }), early, Waiting,
			"waiting for the overlay to answer (nothing is listening there)"},
		{"a unit that keeps failing is named", nil, with(func(f *Facts) { f.Agent = Daemon{} },
			unit(Unit{UnitAgent, "activating", "auto-restart", "exit-code", 7})), early, Waiting,
			"waiting for the agent to answer; kairos-agent.service is activating (auto-restart, exit-code)"},
		{"the mesh is on its way", worker(), with(cutOff), early, Waiting, "a connection to another node"},
		{"k3s is on its way", worker(), with(func(f *Facts) { f.K3s = K3s{Why: "getting the k3s image"} }), early, Waiting, "waiting for k3s to run (getting the k3s image)"},
		{"Kubernetes is on its way", worker(), with(notReady), early, Waiting, "Kubernetes to call this node ready (kubelet does not answer)"},
		{"a card that is gone may still come", meshed(), with(cutOff, func(f *Facts) { f.Cards = nil }), early, Waiting, "a connection to another node"},

		{"a lone machine's card may still come", wired(), with(cutOff, setup("")), early, Waiting, "waiting for the network"},

		// Bad: this machine itself is not well, whatever the network is like.
		{"the overlay never answers", nil, with(func(f *Facts) { f.Overlay = Daemon{} }, unit(Unit{UnitOverlay, "failed", "failed", "exit-code", 0})), late, Bad,
			"after 10m0s still waiting for the overlay to answer; kairos-overlay.service is failed (exit-code)"},
		{"the agent never answers, in an outage", worker(), with(cutOff, noCarrier, func(f *Facts) { f.Agent = Daemon{} }), late, Bad, "the agent to answer"},
		{"containerd does not run, in an outage", worker(), with(cutOff, noCarrier, func(f *Facts) { f.K3s.Running = false },
			unit(Unit{Name: UnitContainerd, Active: "failed", Result: "exit-code"})), late, Bad, "k3s to run; containerd.service is failed"},
		{"the k3s image cannot be had, in an outage", server(), with(cutOff, noLease, func(f *Facts) { f.K3s.Running = false }), late, Bad, "k3s to run"},
		{"k3s is never ready on the server", server(), with(notReady), late, Bad, "Kubernetes to call this node ready"},
		{"k3s is never ready on the server, in an outage", server(), with(cutOff, noCarrier), late, Bad, "Kubernetes to call this node ready"},
		{"the new system refuses the configuration", worker(), with(func(f *Facts) { f.Config, f.ConfigWhy = ConfigRefused, "unknown key kairos.x" }), early, Bad,
			"the new system refuses the configuration that the old one took: unknown key kairos.x"},

		// Bad: the system broke the network.
		{"of a lone machine, which nobody can log in to", wired(), with(cutOff, setup("unmanaged")), late, Bad, "still waiting for the network: systemd-networkd does not serve the network card ens3"},
		{"the card is gone", meshed(), with(cutOff, func(f *Facts) { f.Cards = nil }), late, Bad, "the network card eth0 (" + mac + ") is gone"},
		{"the card was never brought up", meshed(), with(cutOff, noCarrier, func(f *Facts) { f.Cards[0].Up = false }), late, Bad, "was never brought up"},
		{"networkd does not run", meshed(), with(cutOff, noCarrier, func(f *Facts) { f.Units[0].Active = "inactive" }), late, Bad, "systemd-networkd.service is inactive"},
		{"networkd does not manage the card", meshed(), with(cutOff, setup("unmanaged")), late, Bad, "does not serve the network card ens3"},
		{"networkd knows nothing of the card", meshed(), with(cutOff, setup("")), late, Bad, "it knows nothing of it"},
		{"networkd failed on the card", meshed(), with(cutOff, setup("failed")), late, Bad, ": failed"},
		{"the configured address is lost", func() *Expect { e := meshed(); e.NICs[0].Static = true; return e }(), with(cutOff, noLease), late, Bad,
			"lost its configured address 10.0.0.5/24"},
		{"a node accepts, and the mesh does not come up", worker(), with(cutOff, heard(beta, Accepted)), late, Bad,
			"beta-bbbbbb answers at 198.51.100.9:4171, and the overlay does not get through"},
		{"a node refuses, and the mesh does not come up", worker(), with(cutOff, heard(gateway, Silent), heard(beta, Refused)), late, Bad, "beta-bbbbbb answers"},
		{"a node behind a translator accepts", worker(), with(cutOff, heard(gamma, Accepted)), late, Bad, "gamma-cccccc answers"},
		{"our own packet filter forbids it", worker(), with(cutOff, heard(gateway, Forbidden)), late, Bad, "own packet filter"},
		{"answers are dropped: the gateway is on the link and mute", worker(), with(cutOff, onLink(gateway, Silent, true), heard(beta, Silent)), late, Bad,
			"the gateway (10.0.0.1:53) answered before and is on the link"},
		{"answers are dropped: a node is on the link and mute", worker(), with(cutOff, onLink(alpha, Silent, true)), late, Bad, "alpha-aaaaaa (10.0.0.7:4171) answered before"},
		{"the server answers below and is not in the mesh", worker(), with(notReady, func(f *Facts) { f.K3s.ServerConnected = false }, heard(alpha, Accepted)), late, Bad,
			"the server alpha-aaaaaa answers"},
		{"the API is there and the node is not ready", worker(), with(notReady, func(f *Facts) { f.K3s.API = Accepted }), late, Bad, "the server's Kubernetes API is there"},
		{"packets do not pass through the overlay", worker(), with(notReady, func(f *Facts) { f.K3s.API = Silent }), late, Bad, "does not answer through it"},

		// Good by grace: an outage.
		{"the cable is out", worker(), with(cutOff, noCarrier), late, Good, "the system is not at fault: no carrier on ens3"},
		{"the cable of a configured address is out", func() *Expect { e := meshed(); e.NICs[0].Static = true; return e }(), with(cutOff, noCarrier), late, Good, "no carrier"},
		{"a node on the link is silent, and its link layer too", worker(), with(cutOff, onLink(alpha, Silent, false)), late, Good, "nobody that was known before answers"},
		{"nobody leases an address", worker(), with(cutOff, noLease), late, Good, "no answer to DHCP or router solicitation on ens3"},
		{"the line behind the gateway is dead", worker(), with(cutOff, onLink(gateway, Accepted, true), heard(beta, Silent)), late, Good,
			"the gateway is there, but no other node"},
		{"the other node on the link is off", worker(), with(cutOff, onLink(gateway, Refused, true), onLink(alpha, Unreachable, false)), late, Good,
			"the gateway is there, but no other node"},
		{"the gateway never answered, and is on the link", meshed(), with(cutOff, onLink(Probe{Name: "the gateway", Gateway: true}, Silent, true)), late, Good, "the gateway is there"},
		{"a router refuses in a node's place", worker(), with(cutOff, heard(gamma, Refused)), late, Good, "nobody that was known before answers"},
		{"networkd did not serve the card before either", func() *Expect { e := meshed(); e.NICs[0].Served = false; return e }(), with(cutOff, noCarrier, setup("unmanaged")), late, Good,
			"no carrier"},
		{"nobody answers", worker(), with(cutOff, onLink(gateway, Unreachable, false), heard(beta, Unreachable)), late, Good, "nobody that was known before answers"},
		{"a second card without a cable is no fault", func() *Expect {
			e := meshed()
			e.NICs = append(e.NICs, NIC{Name: "eth1", MAC: "52:54:00:00:00:02"})
			return e
		}(), with(cutOff, noCarrier), late, Good, "no carrier on ens3"},
		{"the server is away", worker(), with(notReady, func(f *Facts) { f.K3s.ServerConnected = false }, heard(alpha, Unreachable)), late, Good, "the cluster's server is away"},
		{"the server's k3s is down", worker(), with(notReady, func(f *Facts) { f.K3s.API = Refused }), late, Good, "its Kubernetes API is not"},

		// Not configured.
		{"flashed, without a token", nil, with(func(f *Facts) { f.Config, f.ConfigWhy = ConfigRefused, "network_token is missing" }), early, Bad,
			"no usable configuration: network_token is missing"},
		{"upgraded without ever having been configured", &Expect{When: noon}, with(func(f *Facts) { f.Config = ConfigRefused }), early, Good, "as before"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Judge(tt.expect, tt.facts, tt.clock)
			if got.Verdict != tt.want || !strings.Contains(got.Reason, tt.reason) {
				t.Errorf("%s: %s\nwant %s: ...%s...", got.Verdict, got.Reason, tt.want, tt.reason)
			}
			if strings.Contains(got.Reason, "\n") || got.Reason == "" {
				t.Errorf("not one line: %q", got.Reason)
			}
		})
	}
}

// Whatever is observed, after the limit there is a verdict, and before it a
// boot that lacks something is not called good.
func TestJudgeAlwaysEnds(t *testing.T) {
	changes := []func(*Facts){cutOff, notReady, noCarrier, noLease, setup(""), func(f *Facts) { f.Overlay = Daemon{} }, func(f *Facts) { f.Agent = Daemon{} },
		func(f *Facts) { f.K3s.Running = false }, func(f *Facts) { f.Cards = nil }, func(f *Facts) { f.Units = nil }, heard(beta, Silent), heard(alpha, Accepted)}
	for _, e := range []*Expect{nil, alone(), meshed(), worker(), server()} {
		for mask := range 1 << len(changes) {
			f := well()
			for i, c := range changes {
				if mask>>i&1 == 1 && (len(f.Cards) > 0 || i != 2 && i != 3 && i != 4) {
					c(&f)
				}
			}
			early, late := Judge(e, f, Clock{0, time.Second}), Judge(e, f, Clock{time.Second, time.Second})
			if late.Verdict == Waiting || early.Verdict == Good && late.Verdict != Good {
				t.Fatalf("%+v of %+v: early %+v, late %+v", f, e, early, late)
			}
		}
	}
}
