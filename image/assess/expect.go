package assess

import (
	"net/netip"
	"path/filepath"
	"time"
)

// Expect is what this machine had and did before it was given another system:
// what that system has to bring back. It holds no secret.
type Expect struct {
	Version    int       `json:"version"`
	When       time.Time `json:"when"`             // by the wall clock: shown, never compared
	Configured bool      `json:"configured"`       // the overlay and the agent ran
	Mesh       bool      `json:"mesh"`             // it was connected to another member
	Cluster    bool      `json:"cluster"`          // it ran k3s and Kubernetes called the node ready
	Server     bool      `json:"server"`           // it ran the control plane
	NICs       []NIC     `json:"nics,omitempty"`   // real network cards
	Probes     []Probe   `json:"probes,omitempty"` // gateways and members, by address
}

// NIC is a real network card as it was.
type NIC struct {
	Name    string         `json:"name"` // for people: another kernel may name it differently
	MAC     string         `json:"mac"`
	Carrier bool           `json:"carrier"`
	DHCP    bool           `json:"dhcp"` // its address was leased
	Addrs   []netip.Prefix `json:"addresses,omitempty"`
}

// Probe is a place in the network below the overlay that may answer.
type Probe struct {
	Name    string         `json:"name"`              // of the member; "gateway"
	Addr    netip.AddrPort `json:"addr"`              // TCP
	Gateway bool           `json:"gateway,omitempty"` // not a member
	Server  bool           `json:"server,omitempty"`  // runs the control plane of this machine's cluster
	Answers bool           `json:"answers"`           // it accepted or refused a connection then
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
