package tests

import (
	"fmt"
	"slices"
	"strings"
)

// room says what a package may import of this repository. The first one whose
// name matches counts. A name or an allowed path that ends in /... also means
// everything below it.
type room struct {
	name  string
	may   []string
	plain bool // pure: nothing but the standard library and golang.org/x/crypto from outside
}

var (
	pure    = []string{"overlay/token", "overlay/identity", "overlay/secret", "overlay/keepjson", "overlay/wire", "overlay/member", "overlay/rights", "overlay/route"}
	network = slices.Concat(pure, []string{"overlay/internal/..."})
	// ofOverlay is what the node knows of the network: its door and its words.
	ofOverlay = []string{"overlay/api", "overlay/identity", "overlay/rights", "overlay/token", "overlay/wire", "overlay/keepjson"}
	ofAgent   = slices.Concat(ofOverlay, []string{"agent/api", "agent/config", "agent/store", "agent/broadcast", "agent/health"})
	// ofMember is what a member that is no node does with a cluster: ask those that
	// run it for a kubeconfig, and believe whom the machines agreed on.
	ofMember = []string{"agent/api", "agent/genesis", "agent/kubeconfig", "agent/peer"}
)

// rooms is what ARCHITECTURE.md calls the borders: dependencies point down only,
// and siblings do not know each other.
var rooms = []room{
	{name: "cmd/internal/cli", may: slices.Concat(ofMember, []string{"overlay/..."})},
	{name: "cmd/internal/node", may: []string{"cmd/internal/cli", "agent/...", "overlay/...", "systemd", "image/assess/...", "image/install", "image/release", "image/slots", "image/upgrade"}},
	{name: "cmd/...", may: []string{"cmd/internal/..."}},

	{name: "overlay", may: []string{"overlay/..."}},
	{name: "overlay/token", may: []string{"overlay/secret"}, plain: true},
	{name: "overlay/identity", may: []string{"overlay/secret"}, plain: true},
	{name: "overlay/secret", plain: true},
	{name: "overlay/keepjson", plain: true},
	{name: "overlay/wire", may: []string{"overlay/identity", "overlay/token"}, plain: true},
	{name: "overlay/member", may: pure, plain: true},
	{name: "overlay/rights", may: []string{"overlay/identity", "overlay/wire"}, plain: true},
	{name: "overlay/route", may: pure, plain: true},
	{name: "overlay/path", may: []string{"overlay/identity"}, plain: true},
	{name: "overlay/dial", may: []string{"overlay/identity"}, plain: true},
	{name: "overlay/offload", plain: true},
	{name: "overlay/admission", may: network, plain: true},
	{name: "overlay/mesh", may: slices.Concat(network, []string{"overlay/admission", "overlay/dial", "overlay/discovery", "overlay/socket", "overlay/underlay"})},
	{name: "overlay/underlay", may: slices.Concat(network, []string{"overlay/socket"})},
	{name: "overlay/datapath", may: slices.Concat(network, []string{"overlay/session", "overlay/offload", "overlay/path"})},
	{name: "overlay/overlaytest/...", may: []string{"overlay/..."}},
	{name: "overlay/tun", may: slices.Concat(network, []string{"overlay/offload"})},
	{name: "overlay/metrics", may: []string{"overlay/api"}},
	{name: "overlay/tun/tuntest", may: []string{"overlay/tun", "overlay/offload"}},
	{name: "overlay/...", may: network},

	{name: "agent", may: slices.Concat(ofAgent, []string{"agent/..."})},
	{name: "agent/api", may: slices.Concat(ofOverlay, []string{"agent/health"}), plain: true},
	{name: "agent/role", may: ofAgent, plain: true},
	// Above the rooms that it lets meet.
	{name: "agent/departure", may: slices.Concat(ofAgent, []string{"agent/kube", "agent/role"})},
	{name: "agent/lock", may: slices.Concat(ofAgent, []string{"agent/kube"})},
	{name: "agent/images", may: slices.Concat(ofAgent, []string{"agent/k3s", "agent/oci", "agent/role", "agent/seed"})},
	{name: "agent/health", plain: true},
	{name: "agent/broadcast", plain: true},
	{name: "agent/...", may: ofAgent},

	{name: "systemd"},
	// A configuration that goes onto a medium is checked as the machine will.
	{name: "image", may: []string{"image/...", "systemd", "agent/oci", "agent/config"}},
	// What a registry may say, and how it is verified, is the same for every image.
	{name: "image/signature", may: []string{"image/...", "agent/oci"}},
	{name: "image/upgrade/...", may: []string{"image/...", "agent/oci"}},
	{name: "image/builder", may: []string{"image/...", "systemd", "agent/oci"}},
	{name: "image/assess", may: []string{"agent/store", "overlay/keepjson"}, plain: true},
	{name: "image/slots", may: []string{"image/...", "overlay/keepjson"}},
	{name: "image/...", may: []string{"image/...", "systemd"}},
	{name: "tests/...", may: []string{"..."}},
}

// owners says who may import a heavy dependency. Tests of the whole may too.
var owners = map[string][]string{
	"github.com/libp2p/":                      {"overlay/underlay", "overlay/discovery"},
	"github.com/quic-go/":                     {"overlay/underlay", "overlay/socket"},
	"github.com/flynn/noise":                  {"overlay/session"},
	"golang.org/x/net/dns/":                   {"overlay/discovery"},
	"github.com/multiformats/":                {"overlay/underlay", "overlay/discovery"},
	"github.com/songgao/water":                {"overlay/tun"},
	"github.com/vishvananda/":                 {"overlay/tun", "overlay/underlay"},
	"github.com/miekg/dns":                    {"overlay/dns"},
	"github.com/godbus/":                      {"overlay/dns"},
	"github.com/prometheus/":                  {"overlay/metrics"},
	"github.com/google/go-containerregistry/": {"agent/oci", "image/..."},
	"github.com/containerd/":                  {"agent/k3s", "agent/oci"}, // oci: certs.d means what it means for pods
	"github.com/spdx/":                        {"image/builder"},
	"github.com/opencontainers/":              {"agent/k3s"},
	"github.com/coreos/go-systemd/":           {"systemd"},
	"github.com/spf13/":                       {"cmd/internal/..."},
	"go.yaml.in/":                             {"agent/config", "image/..."},
	"github.com/invopop/jsonschema":           {"agent/config"},
}

// guests says who may import one in test files only.
var guests = map[string][]string{
	// Strangers that knock at the mesh are libp2p's own host.
	"github.com/libp2p/":       {"overlay/mesh"},
	"github.com/multiformats/": {"overlay/mesh"},
	// What is written for people must be what a real reader of YAML reads.
	"go.yaml.in/": {"cmd/internal/cli"},
}

// inTests says what only test files of any package may import besides.
var inTests = []string{
	"overlay/token", "overlay/overlaytest", "overlay/tun", "overlay/tun/tuntest", "overlay/overlaytest/...",
	"agent/kube/kubetest", "image/slots/slotstest", "image/upgrade/upgradetest", "image/signature/signaturetest",
}

func checkImports(all []*pkg) []string {
	var faults []string
	for _, p := range all {
		for _, s := range p.sources {
			for _, path := range s.imports() {
				if why := forbidden(p.path, path, s.test()); why != "" {
					faults = append(faults, fmt.Sprintf("%s imports %s: %s", s.name, path, why))
				}
			}
		}
	}
	return faults
}

// forbidden says why from may not import path; "" if it may.
func forbidden(from, path string, test bool) string {
	if matches(from, "tests/...") {
		return ""
	}
	i := slices.IndexFunc(rooms, func(r room) bool { return matches(from, r.name) })
	if i < 0 {
		return from + " is not one of the rooms"
	}
	if own, ok := strings.CutPrefix(path, "."); ok {
		return forbiddenOwn(rooms[i], from, strings.TrimPrefix(own, "/"), test)
	}
	for prefix, who := range owners {
		if test {
			who = slices.Concat(who, guests[prefix])
		}
		if strings.HasPrefix(path, prefix) && !slices.ContainsFunc(who, func(w string) bool { return matches(from, w) }) {
			return "only for " + strings.Join(who, ", ")
		}
	}
	if rooms[i].plain && !test && strings.Contains(strings.Split(path, "/")[0], ".") && !strings.HasPrefix(path, "golang.org/x/crypto/") {
		return "a pure room imports the standard library and golang.org/x/crypto only"
	}
	return ""
}

func forbiddenOwn(r room, from, path string, test bool) string {
	switch {
	case path == from || strings.HasPrefix(path, from+"/"): // parts of itself, and external tests of itself
		return ""
	case slices.ContainsFunc(r.may, func(m string) bool { return matches(path, m) }):
		return ""
	case test && slices.ContainsFunc(inTests, func(m string) bool { return matches(path, m) }):
		return ""
	case len(r.may) == 0:
		return from + " imports nothing of this repository"
	}
	return from + " may import only " + strings.Join(r.may, ", ")
}

func matches(path, pattern string) bool {
	top, below := strings.CutSuffix(pattern, "...")
	if !below {
		return path == pattern
	}
	return strings.HasPrefix(path, top) || path+"/" == top
}
