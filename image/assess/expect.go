package assess

import (
	"net/netip"
	"path/filepath"
	"time"
)

// Expect is what this machine had and did before it was given another system:
// what that system has to bring back while it is on trial. It holds no secret.
type Expect struct {
	Version    int       `json:"version"`
	When       time.Time `json:"when"`                 // by the wall clock: shown, never compared
	Configured bool      `json:"configured"`           // its configuration was taken
	Conditions []string  `json:"conditions,omitempty"` // codes of the overlay's errors that were there already
	Mesh       bool      `json:"mesh"`                 // it was connected to another node
	Cluster    bool      `json:"cluster"`              // it ran k3s
	Ready      bool      `json:"ready"`                // Kubernetes called the node ready
	Server     bool      `json:"server"`               // it ran the control plane
	NICs       []NIC     `json:"nics,omitempty"`       // real network cards
	Probes     []Probe   `json:"probes,omitempty"`     // gateways, and where other nodes were
}

// NIC is a real network card as it was.
type NIC struct {
	Name    string         `json:"name"` // for people: another kernel may name it differently
	MAC     string         `json:"mac"`
	Carrier bool           `json:"carrier"`             // a cable, with somebody at its other end
	Served  bool           `json:"served"`              // systemd-networkd managed it
	Static  bool           `json:"static"`              // its addresses were configured, not leased or advertised
	Addrs   []netip.Prefix `json:"addresses,omitempty"` // without link-local ones
}

// Probe is a place in the network below the overlay that may answer over TCP.
type Probe struct {
	Name    string         `json:"name"` // of the node, or "the gateway"
	Addr    netip.AddrPort `json:"addr"`
	Gateway bool           `json:"gateway,omitempty"` // not a node
	Own     bool           `json:"own,omitempty"`     // the node announces this address itself: it is no translator's
	Server  bool           `json:"server,omitempty"`  // runs the control plane of this machine's cluster
	Answers bool           `json:"answers"`           // it accepted or refused a connection then
}

// heardFrom reports whether this answer is the node's own: a refusal may come
// from a router before it.
func (p Probe) heardFrom(a Answer) bool { return a == Accepted || a == Refused && p.Own }

// Silence is which of the daemons did not answer when the machine was looked at.
type Silence struct{ Overlay, Agent bool }

// Recall fills in what nobody could be asked, with what was known of the same
// machine before (nil: nothing): a daemon that is just being restarted must not
// make the new system one of which nothing is expected.
func (e Expect) Recall(was *Expect, s Silence) Expect {
	if was == nil {
		return e
	}
	e.Configured = e.Configured || was.Configured
	if s.Overlay {
		e.Conditions = was.Conditions
	}
	if !e.Mesh && was.Mesh { // an overlay that answers may have had no time to connect yet
		e.Mesh = true
		for _, p := range was.Probes {
			if !p.Gateway { // those were seen again
				e.Probes = append(e.Probes, p)
			}
		}
	}
	if s.Agent {
		e.Cluster, e.Ready, e.Server = e.Cluster || was.Cluster, was.Ready, e.Server || was.Server
	}
	return e
}

// LoadExpect reads expect.json in dir; nil without an error when there is none:
// this system was flashed or installed, and nothing is expected but local health.
func LoadExpect(dir string) (*Expect, error) {
	var e Expect
	found, err := load(filepath.Join(dir, expectFile), &e)
	if err != nil || !found {
		return nil, err
	}
	return &e, nil
}

// Save makes the expectation durable in dir.
func (e Expect) Save(dir string) error {
	e.Version = version
	return save(filepath.Join(dir, expectFile), e)
}
