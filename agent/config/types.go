package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/token"
)

// Config is the kairos block. A Config made by this package is complete and valid.
type Config struct {
	NetworkToken token.Token `yaml:"network_token" jsonschema:"required" jsonschema_description:"The shared secret of the network, printed by 'kairos generate-token'."`
	NetworkID    string      `yaml:"network_id" jsonschema_description:"Name of the cluster on this network: a DNS label. Several clusters may share a network."`
	Role         Role        `yaml:"role" jsonschema_description:"Empty: decided automatically. master: may run the control plane. worker: may not."`
	DNS          bool        `yaml:"dns" jsonschema_description:"Resolve names of the mesh on this machine."`
	LogLevel     LogLevel    `yaml:"log_level" jsonschema_description:"How much is logged."`
	Overlay      Overlay     `yaml:"overlay" jsonschema_description:"The encrypted network."`
	Cluster      Cluster     `yaml:"cluster" jsonschema_description:"Kubernetes on top of the network."`
	K3s          K3s         `yaml:"k3s" jsonschema_description:"How k3s is run."`
	OS           OS          `yaml:"os" jsonschema_description:"How the operating system of an appliance is upgraded."`
}

// Overlay is the overlay mapping.
type Overlay struct {
	Interface string           `yaml:"interface" jsonschema_description:"Name of the network interface, at most 15 characters."`
	CIDR      netip.Prefix     `yaml:"cidr" jsonschema_description:"IPv4 range of the overlay, /8 to /24. Default: chosen by the token."`
	Listen    []netip.AddrPort `yaml:"listen" jsonschema_description:"Underlay addresses (UDP and TCP) to listen on."`
	Peers     []string         `yaml:"peers" jsonschema_description:"Members to dial: host:port, [v6]:port or a multiaddress."`
	MDNS      bool             `yaml:"mdns" jsonschema_description:"Find members on the local network."`
	DHT       bool             `yaml:"dht" jsonschema_description:"Find members through the public DHT. Not in this version."`
	Relay     bool             `yaml:"relay" jsonschema_description:"Reach members through relays. Not in this version."`
	MTU       int              `yaml:"mtu" jsonschema_description:"MTU of the interface, 1280 to 9000. 0: the best default."`
}

// Cluster is the cluster mapping.
type Cluster struct {
	Enabled bool   `yaml:"enabled" jsonschema_description:"false: the network interface only, no Kubernetes."`
	UID     string `yaml:"uid" jsonschema_description:"Which cluster this machine may join, where two claim the network: the 32 hex digits that status shows on its server. Empty: the one that is there."`
	Servers int    `yaml:"servers" jsonschema_description:"Number of control plane nodes. This version: 1."`
}

// K3s is the k3s mapping.
type K3s struct {
	Image string            `yaml:"image" jsonschema_description:"OCI image of k3s: a reference, or oci:/path of a layout on disk. Empty: the one this version was made for."`
	Args  []string          `yaml:"args" jsonschema_description:"More arguments for k3s. Flags that Kairos sets itself are refused."`
	Env   map[string]Secret `yaml:"env" jsonschema_description:"Environment of k3s."`
}

// OS is the os mapping.
type OS struct {
	Image         string        `yaml:"image" jsonschema_description:"Where upgrades come from: a reference, or oci:/path of a layout on disk. Empty: where the last one came from."`
	VerifyKey     PublicKey     `yaml:"verify_key" jsonschema_description:"Public key in PEM. When set, an image that it did not sign is refused."`
	HealthTimeout time.Duration `yaml:"health_timeout" jsonschema_description:"How long a new version may take to become healthy before the machine goes back to the old one, such as 10m or 1h30m."`
}

// Role is the configured role.
type Role = agentapi.Wanted

// The roles.
const (
	RoleAuto   = agentapi.WantedAny
	RoleMaster = agentapi.WantedMaster
	RoleWorker = agentapi.WantedWorker
)

// LogLevel is the configured amount of logging.
type LogLevel string

// The levels.
const (
	LogDebug LogLevel = "debug"
	LogInfo  LogLevel = "info"
	LogWarn  LogLevel = "warn"
	LogError LogLevel = "error"
)

// Slog returns the level as slog knows it.
func (l LogLevel) Slog() slog.Level {
	switch l {
	case LogDebug:
		return slog.LevelDebug
	case LogWarn:
		return slog.LevelWarn
	case LogError:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// Secret is a configured text that may hold a password (a proxy URL in k3s.env
// for instance): it does not show itself in logs, JSON or %v. Reveal is the
// only way to the text.
type Secret string

const redacted = "(redacted)"

// Reveal returns the text.
func (s Secret) Reveal() string { return string(s) }

// String implements fmt.Stringer without the text.
func (Secret) String() string { return redacted }

// GoString implements fmt.GoStringer without the text.
func (Secret) GoString() string { return redacted }

// Format implements fmt.Formatter without the text, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalJSON implements json.Marshaler without the text.
func (Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// MarshalText implements encoding.TextMarshaler without the text.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer without the text.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// Default returns the configuration that holds where no file says otherwise.
// It has no token.
func Default() Config {
	return Config{
		NetworkID: "kairos",
		DNS:       true,
		LogLevel:  LogInfo,
		Overlay: Overlay{
			Interface: "kairos0",
			Listen: []netip.AddrPort{
				netip.MustParseAddrPort("0.0.0.0:4171"),
				netip.MustParseAddrPort("[::]:4171"),
			},
			MDNS: true,
		},
		Cluster: Cluster{Enabled: true, Servers: 1},
		OS:      OS{HealthTimeout: 10 * time.Minute},
	}
}
