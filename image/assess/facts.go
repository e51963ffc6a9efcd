package assess

import (
	"net/netip"
	"strings"
)

// ConfigState is what became of the configuration in this boot.
type ConfigState string

// The states. The zero one is not known yet.
const (
	ConfigPending ConfigState = ""
	ConfigTaken   ConfigState = "taken"
	ConfigRefused ConfigState = "refused" // something is wrong with it, or there is none
)

// Units whose state explains what is missing.
const (
	UnitConfig     = "kairos-config.service"
	UnitOverlay    = "kairos-overlay.service"
	UnitAgent      = "kairos-agent.service"
	UnitContainerd = "containerd.service"
	UnitNetworkd   = "systemd-networkd.service"
)

// UnitActive is the ActiveState of a unit that runs.
const UnitActive = "active"

// Unit is one unit as the service manager has it.
type Unit struct {
	Name     string
	Active   string // ActiveState: active, activating, failed, inactive, ...
	Sub      string // SubState, such as auto-restart
	Result   string // of the last run: exit-code, signal, ...
	Restarts int    // how often it was restarted by itself
}

// String is what to tell of a unit that is not active.
func (u Unit) String() string {
	var more []string
	for _, s := range []string{u.Sub, u.Result} {
		if s != "" && s != u.Active && s != "success" {
			more = append(more, s)
		}
	}
	if len(more) == 0 {
		return u.Active
	}
	return u.Active + " (" + strings.Join(more, ", ") + ")"
}

// Facts is what was observed at one moment.
type Facts struct {
	Config    ConfigState
	ConfigWhy string // why ConfigRefused
	Overlay   Daemon
	Agent     Daemon
	Nodes     int // other nodes that are connected; laptops do not count
	K3s       K3s
	Units     []Unit
	Cards     []Card
	Heard     []Heard // of Expect.Probes, once something is missing
}

// Daemon is one of ours.
type Daemon struct {
	Up  bool   // it answers and is well
	Why string // one line why not; may be empty
}

// K3s is what the agent says of it.
type K3s struct {
	Disabled bool   // cluster.enabled is false
	Running  bool   // its process lives
	Ready    bool   // it works, and Kubernetes calls the node ready
	Why      string // what the agent waits for
	// ServerConnected: the overlay is connected to the server. API is what that
	// server's Kubernetes API answered over it, to a connection of ours.
	ServerConnected bool
	API             Answer
}

// Card is a network card as it is.
type Card struct {
	Name    string
	MAC     string
	Up      bool   // administratively
	Carrier bool   // meaningful while Up
	Setup   string // networkd's word: configured, configuring, unmanaged, failed, ...; "" when it knows nothing
	Static  bool   // its addresses were configured, not leased or advertised
	Addrs   []netip.Prefix
}

// Served reports whether networkd manages the card and has not given it up.
func (c Card) Served() bool { return c.Setup != "" && c.Setup != "unmanaged" && c.Setup != "failed" }

// NIC is the card as an Expect remembers it.
func (c Card) NIC() NIC {
	return NIC{Name: c.Name, MAC: c.MAC, Carrier: c.Carrier, Served: c.Served(), Static: c.Static, Addrs: c.Addrs}
}

// Answer is what came back when a TCP connection was tried.
type Answer string

// The answers. The zero one: not asked.
const (
	NotAsked    Answer = ""
	Accepted    Answer = "accepted"
	Refused     Answer = "refused"     // by a reset: somebody is there
	Silent      Answer = "silent"      // nothing until the time was up
	Unreachable Answer = "unreachable" // said the kernel or a router: no such host, no route
	Forbidden   Answer = "forbidden"   // by this machine's own packet filter
)

// There reports whether somebody is at the other end.
func (a Answer) There() bool { return a == Accepted || a == Refused }

// Heard is what came back from a place.
type Heard struct {
	Probe  Probe
	Answer Answer
	// OnLink: its address is in the network of one of our cards. Neighbour: the
	// link layer knows who has it (ARP, neighbour discovery).
	OnLink, Neighbour bool
}
