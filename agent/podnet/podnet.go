package podnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kairos-io/kairos/agent/store"
)

// Bridge is the bridge that the pods of a node share.
const Bridge = "cni0"

// DefaultConfDir is where containerd reads CNI configurations.
const DefaultConfDir = "/etc/cni/net.d"

// network is the name of the CNI network.
const network = "kairos"

// confName sorts before what others may leave there: the first file wins.
const confName = "10-kairos.conflist"

// Config is the pod network of one node.
type Config struct {
	PodCIDR   netip.Prefix   // this node's pods
	Pods      netip.Prefix   // all pods
	Services  netip.Prefix   // all services
	Overlay   []netip.Prefix // the overlay's own ranges, IPv4 first
	Interface string         // of the overlay
	Address   netip.Addr     // this node's overlay IPv4
	MTU       int            // of the overlay interface; pods get the same
	Resolver  netip.Addr     // where pods reach the machine's resolver; not valid: nowhere
}

// Host is the machine that is configured. The zero value is the real one.
type Host struct {
	ConfDir      string                                                    // empty: DefaultConfDir
	ProcSys      string                                                    // empty: /proc/sys
	Reservations string                                                    // of the host-local plugin; empty: where it keeps them
	NFT          func(ctx context.Context, script string) error            // nil: the nft program
	Run          func(ctx context.Context, name string, a ...string) error // nil: exec
}

// Apply makes the machine carry the configuration. It is idempotent.
func (h Host) Apply(ctx context.Context, c Config) error {
	if err := c.check(); err != nil {
		return err
	}
	if err := h.sysctls(ctx); err != nil {
		return err
	}
	if err := h.nft(ctx, Ruleset(c)); err != nil {
		return fmt.Errorf("load the nftables rules: %w", err)
	}
	if err := h.openForward(ctx, c); err != nil {
		return err
	}
	if c.Resolver.IsValid() { // after the rules, which keep others from it
		if err := h.run(ctx, "ip", "address", "replace", c.Resolver.String()+"/32", "dev", "lo"); err != nil {
			return fmt.Errorf("give the resolver of pods its address: %w", err)
		}
	}
	conf, err := Conflist(c)
	if err != nil {
		return err
	}
	// Last, because containerd starts pods as soon as it sees the file.
	return h.writeConf(conf)
}

func (c Config) check() error {
	switch {
	case !c.PodCIDR.IsValid() || !c.PodCIDR.Addr().Is4() || c.PodCIDR.Bits() > 30:
		return fmt.Errorf("set up the pod network: %v is not a pod range", c.PodCIDR)
	case !c.Pods.Overlaps(c.PodCIDR) || c.PodCIDR.Bits() < c.Pods.Bits():
		return fmt.Errorf("set up the pod network: %v is outside %v", c.PodCIDR, c.Pods)
	case c.MTU < 1280 || !c.Address.Is4() || len(c.Overlay) == 0:
		return errors.New("set up the pod network: the overlay's addresses are not known")
	case c.Interface == "" || strings.ContainsAny(c.Interface, "\"\\ \t\n{};"):
		return fmt.Errorf("set up the pod network: %q is not an interface", c.Interface)
	}
	return nil
}

// conflist is a CNI network configuration list.
type conflist struct {
	CNIVersion string   `json:"cniVersion"`
	Name       string   `json:"name"`
	Plugins    []plugin `json:"plugins"`
}

type plugin struct {
	Type         string          `json:"type"`
	Bridge       string          `json:"bridge,omitempty"`
	IsGateway    bool            `json:"isGateway,omitempty"`
	ForceAddress bool            `json:"forceAddress,omitempty"` // the bridge follows a new range
	HairpinMode  bool            `json:"hairpinMode,omitempty"`
	MTU          int             `json:"mtu,omitempty"`
	IPAM         *ipam           `json:"ipam,omitempty"`
	Capabilities map[string]bool `json:"capabilities,omitempty"`
}

type ipam struct {
	Type   string      `json:"type"`
	Ranges [][]ipamNet `json:"ranges"`
	Routes []ipamRoute `json:"routes"`
}

type ipamNet struct {
	Subnet string `json:"subnet"`
}

type ipamRoute struct {
	Dst string `json:"dst"`
}

// Conflist returns the CNI configuration. Masquerading is not the bridge
// plugin's business: the nftables table knows the ranges better.
func Conflist(c Config) ([]byte, error) {
	l := conflist{CNIVersion: "0.4.0", Name: network, Plugins: []plugin{
		{Type: "bridge", Bridge: Bridge, IsGateway: true, ForceAddress: true, HairpinMode: true, MTU: c.MTU, IPAM: &ipam{
			Type:   "host-local",
			Ranges: [][]ipamNet{{{Subnet: c.PodCIDR.String()}}},
			Routes: []ipamRoute{{Dst: "0.0.0.0/0"}},
		}},
		{Type: "portmap", Capabilities: map[string]bool{"portMappings": true}},
	}}
	raw, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the CNI configuration: %w", err)
	}
	return append(raw, '\n'), nil
}

func (h Host) confDir() string {
	if h.ConfDir == "" {
		return DefaultConfDir
	}
	return h.ConfDir
}

func (h Host) writeConf(conf []byte) error {
	path := filepath.Join(h.confDir(), confName)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, conf) {
		return nil
	}
	if err := os.MkdirAll(h.confDir(), 0o755); err != nil {
		return fmt.Errorf("make the CNI directory: %w", err)
	}
	if err := store.WriteFile(store.OS{}, path, conf); err != nil {
		return fmt.Errorf("write the CNI configuration: %w", err)
	}
	return nil
}

// sysctls are what routing between pods, overlay and services needs.
var sysctls = []struct {
	key   string
	value int
	need  bool // an error when it cannot be had
}{
	{"net/ipv4/ip_forward", 1, true},
	// Services are translated in the IP hooks, also between two pods of one bridge.
	{"net/bridge/bridge-nf-call-iptables", 1, false},
}

func (h Host) sysctls(ctx context.Context) error {
	root := h.ProcSys
	if root == "" {
		root = "/proc/sys"
	}
	for _, s := range sysctls {
		path := filepath.Join(root, s.key)
		err := setSysctl(path, s.value)
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(s.key, "net/bridge/") {
			// The module may be built in, missing or simply not loaded yet.
			err = errors.Join(h.run(ctx, "modprobe", "br_netfilter"), setSysctl(path, s.value))
		}
		if err != nil && s.need {
			return fmt.Errorf("set %s to %d (it belongs into /etc/sysctl.d): %w", strings.ReplaceAll(s.key, "/", "."), s.value, err)
		}
	}
	return nil
}

func setSysctl(path string, value int) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	want := strconv.Itoa(value)
	if strings.TrimSpace(string(old)) == want {
		return nil
	}
	return os.WriteFile(path, []byte(want), 0o644)
}

func (h Host) nft(ctx context.Context, script string) error {
	if h.NFT != nil {
		return h.NFT(ctx, script)
	}
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	return output(cmd)
}

func (h Host) run(ctx context.Context, name string, args ...string) error {
	if h.Run != nil {
		return h.Run(ctx, name, args...)
	}
	return output(exec.CommandContext(ctx, name, args...))
}

// output runs a command and puts its own words into the error.
func output(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, bytes.TrimSpace(out))
	}
	return nil
}
