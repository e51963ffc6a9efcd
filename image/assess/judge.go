package assess

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// DefaultLimit is how long a boot may take to become good: os.health_timeout.
const DefaultLimit = 10 * time.Minute

// Clock is how long the check has waited, and how long it may. Monotonic.
type Clock struct{ Elapsed, Limit time.Duration }

// Finding is what Judge says.
type Finding struct {
	Verdict Verdict
	Reason  string // one line: what is waited for, or why
	Hint    string // what a person can do; may be empty
}

// missing is the nearest thing that keeps a boot from being good.
type missing struct {
	what  string
	hint  string
	final bool // waiting will not bring it
	net   bool // it needs the network below: an outage would explain it
}

// Judge says how a boot is, by what is expected of it (nil: nothing but local
// health) and what is there now.
//
//	everything expected is there              good
//	something is missing, before the limit    waiting
//	the same after it                         bad ...
//	... except what only the network below could bring, when everything local is
//	well and the image is not seen to be at fault: good, by the grace for outages
//
// An outage alone must not give up a good system; a system that broke the
// network must be given up. Evidence decides between the two: see network.
func Judge(e *Expect, f Facts, c Clock) Finding {
	if e == nil {
		e = &Expect{}
	}
	if f.Config == ConfigRefused && !e.Configured {
		return unconfigured(e, f)
	}
	m := e.missing(f)
	switch {
	case m == nil:
		return Finding{Verdict: Good, Reason: e.praise(f)}
	case m.final:
		return Finding{Verdict: Bad, Reason: m.what, Hint: m.hint}
	case c.Elapsed < c.Limit:
		return Finding{Verdict: Waiting, Reason: "waiting for " + m.what, Hint: m.hint}
	case !m.net:
		return Finding{Verdict: Bad, Reason: fmt.Sprintf("after %s still waiting for %s", c.Limit, m.what), Hint: m.hint}
	}
	fault, outage := e.cause(f)
	if fault != "" {
		return Finding{Verdict: Bad, Reason: fmt.Sprintf("after %s still waiting for %s: %s", c.Limit, m.what, fault), Hint: m.hint}
	}
	return Finding{Verdict: Good, Reason: fmt.Sprintf("kept without %s, because the system is not at fault: %s", m.what, outage), Hint: m.hint}
}

// unconfigured is a machine that nobody has given a configuration yet.
func unconfigured(e *Expect, f Facts) Finding {
	const hint = "put a config.yaml into /oem and run `systemctl restart kairos-config kairos.target`, or see `journalctl -u kairos-config`"
	if !e.When.IsZero() {
		return Finding{Verdict: Good, Reason: "this machine has no usable configuration, as before", Hint: hint}
	}
	return Finding{Verdict: Bad, Reason: "this machine has no usable configuration: " + f.ConfigWhy, Hint: hint}
}

// missing returns the nearest thing that is expected and not there, nil if
// there is none. What the machine does by itself comes before what needs others.
func (e *Expect) missing(f Facts) *missing {
	switch {
	case f.Config == ConfigRefused:
		return &missing{what: "the new system refuses the configuration that the old one took: " + f.ConfigWhy,
			hint: "see `journalctl -u kairos-config`", final: true}
	case f.Config != ConfigTaken:
		return &missing{what: "the configuration to be checked" + f.unit(UnitConfig), hint: "see `systemctl status kairos-config`"}
	case !f.Overlay.Up:
		return &missing{what: "the overlay to answer" + because(f.Overlay.Why) + f.unit(UnitOverlay), hint: "see `journalctl -u kairos-overlay`"}
	case !f.Agent.Up:
		return &missing{what: "the agent to answer" + because(f.Agent.Why) + f.unit(UnitAgent), hint: "see `journalctl -u kairos-agent`"}
	}
	if m := e.missingCluster(f); m != nil {
		return m
	}
	if e.Mesh && f.Nodes == 0 {
		return &missing{what: "a connection to another node of the network", hint: "see `kairos status`", net: true}
	}
	// A machine that nobody was connected to may have people who log in to it.
	if f.Nodes == 0 && e.cardFault(f) != "" {
		return &missing{what: "the network", hint: "see `networkctl`", net: true}
	}
	if e.needsReady(f) && !f.K3s.Ready {
		return &missing{what: "Kubernetes to call this node ready" + because(f.K3s.Why), hint: "see `kairos status`", net: true}
	}
	return nil
}

// missingCluster is the local part of the cluster: k3s runs, and on a server,
// which needs nobody else for it, the node is ready.
func (e *Expect) missingCluster(f Facts) *missing {
	if !e.Cluster || f.K3s.Disabled {
		return nil
	}
	if !f.K3s.Running {
		return &missing{what: "k3s to run" + because(f.K3s.Why) + f.unit(UnitContainerd), hint: "see `kairos status` and `journalctl -u kairos-agent`"}
	}
	if e.Server && e.needsReady(f) && !f.K3s.Ready {
		return &missing{what: "Kubernetes to call this node ready" + because(f.K3s.Why), hint: "see /var/log/kairos/k3s.log"}
	}
	return nil
}

// needsReady: a node that was not ready before the upgrade is not the upgrade's fault.
func (e *Expect) needsReady(f Facts) bool { return e.Cluster && e.Ready && !f.K3s.Disabled }

// praise is the reason of a good boot.
func (e *Expect) praise(f Facts) string {
	parts := []string{"the overlay and the agent are well"}
	if e.Mesh || f.Nodes > 0 {
		parts = append(parts, count(f.Nodes, "node")+" connected")
	}
	if e.needsReady(f) {
		parts = append(parts, "Kubernetes calls this node ready")
	}
	return strings.Join(parts, ", ")
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

// unit adds what the service manager says of a unit that is not active.
func (f Facts) unit(name string) string {
	i := slices.IndexFunc(f.Units, func(u Unit) bool { return u.Name == name })
	if i < 0 || f.Units[i].Active == UnitActive {
		return ""
	}
	return fmt.Sprintf("; %s is %s", name, f.Units[i])
}
