package console

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/token"
)

// Facts is all that the console may say.
type Facts struct {
	Version  string
	Hostname string
	Underlay []Interface
	Overlay  *Overlay // nil: it does not run
	Network  string   // the network's fingerprint; "" without a token
	Role     string   // server, worker, or "" while it is not decided
	Cluster  string   // name of the cluster
	Waiting  string   // why not everything is up, mostly "waiting for ..."; "" when it is
	Problems []string // what is wrong with the configuration, a line each
	Notes    []string // other lines that units of this machine want told

	Configured bool     // the configuration is merged and good
	HostKeys   []string // "SHA256:... (ED25519)"
	Logins     []string // users with an ssh key
}

// Interface is one network card with its addresses.
type Interface struct {
	Name  string
	Addrs []netip.Addr
}

// Overlay is the state of the network of machines.
type Overlay struct {
	Interface string
	Addrs     []netip.Addr
	Connected int // other members that are connected
	Known     int // other members that are known
}

// maxProblems keeps a broken file from pushing everything else off the screen, by
// problems and by notes.
const maxProblems = 6

// unconfigured is what a machine without any configuration says.
var unconfigured = []string{
	"This machine has no configuration yet. Make one elsewhere:",
	"    kairos generate-token -o yaml > config.yaml",
	"and give it to this machine by one of these ways, then boot it again:",
	"  - a file config.yaml at the top of the boot partition (EFI, FAT32)",
	"  - a volume labelled cidata with the files user-data and meta-data,",
	"    or the user data of a cloud",
	"  - the kernel argument kairos.config=https://...",
	"There is no password: ssh_authorized_keys in that file says who may log in.",
}

// locked is what helps where a configuration was refused and nobody can log in.
var locked = []string{
	"Nobody can log in to correct it. Put a correct config.yaml at the top of this",
	"machine's boot partition (EFI, FAT32): from another computer, or from a shell",
	"of the installation medium, started on this machine. Then boot it again.",
}

// journal says where to read on, to who can.
func (f Facts) journal(unit string) string {
	if len(f.Logins) == 0 {
		return ""
	}
	return ": see journalctl -u " + unit
}

// Render is the screen: lines of text without control characters, the last one
// empty.
func Render(f Facts) string {
	var b strings.Builder
	line := func(label, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-9s %s\n", label, clean(value))
		}
	}
	fmt.Fprintf(&b, "kairos mesh %s\n\n", clean(f.Version))
	line("machine", f.Hostname)
	for i, addr := range underlay(f.Underlay) {
		line([]string{"address", ""}[min(i, 1)], addr)
	}
	line("overlay", overlay(f))
	line("network", f.Network)
	line("role", role(f))
	for i, key := range f.HostKeys {
		line([]string{"ssh key", ""}[min(i, 1)], key)
	}
	line("log in", logins(f))
	b.WriteByte('\n')
	switch {
	case len(f.Problems) > 0:
		what := "nothing of it is in force"
		if f.Configured {
			what = "the last good one stays in force"
		}
		fmt.Fprintf(&b, "This configuration was refused, %s:\n", what)
		for _, p := range f.Problems[:min(maxProblems, len(f.Problems))] {
			fmt.Fprintf(&b, "  %s\n", clean(p))
		}
		if more := len(f.Problems) - maxProblems; more > 0 {
			fmt.Fprintf(&b, "  and %d more%s\n", more, f.journal("kairos-config"))
		}
		if len(f.Logins) == 0 {
			b.WriteString(strings.Join(locked, "\n") + "\n")
		}
	case strings.HasPrefix(f.Waiting, "waiting "):
		fmt.Fprintf(&b, "W%s.\n", clean(f.Waiting[1:]))
	case f.Waiting != "":
		fmt.Fprintf(&b, "Not up yet: %s.\n", clean(f.Waiting))
	case !f.Configured:
		b.WriteString(strings.Join(unconfigured, "\n") + "\n")
	case f.Overlay == nil:
		b.WriteString("Waiting for kairos-overlay to start.\n")
	default:
		b.WriteString("Everything is up.\n")
	}
	for _, n := range f.Notes[:min(maxProblems, len(f.Notes))] {
		fmt.Fprintf(&b, "Note: %s\n", clean(n))
	}
	if more := len(f.Notes) - maxProblems; more > 0 {
		fmt.Fprintf(&b, "and %d more%s\n", more, f.journal("kairos-config"))
	}
	return b.String() + "\n"
}

func underlay(list []Interface) []string {
	var out []string
	for _, i := range list {
		var addrs []string
		for _, a := range i.Addrs {
			addrs = append(addrs, a.String())
		}
		if len(addrs) > 0 {
			out = append(out, strings.Join(addrs, " ")+" on "+i.Name)
		}
	}
	switch {
	case len(out) > 0:
		return out
	case len(list) > 0:
		return []string{"none yet on " + list[0].Name + ": is there a DHCP server?"}
	}
	return []string{"none: no network card is connected"}
}

func overlay(f Facts) string {
	switch {
	case f.Overlay == nil && f.Configured:
		return "not running" + f.journal("kairos-overlay")
	case f.Overlay == nil:
		return ""
	}
	var addrs []string
	for _, a := range f.Overlay.Addrs {
		addrs = append(addrs, a.String())
	}
	return fmt.Sprintf("%s on %s, connected to %d of %d", strings.Join(addrs, " "), f.Overlay.Interface, f.Overlay.Connected, f.Overlay.Known)
}

func role(f Facts) string {
	switch {
	case f.Role != "" && f.Cluster != "":
		return f.Role + " of " + f.Cluster
	case f.Role == "" && f.Overlay != nil:
		return "not decided"
	}
	return f.Role
}

func logins(f Facts) string {
	if len(f.Logins) == 0 {
		if f.Configured {
			return "nobody can: the configuration has no ssh_authorized_keys"
		}
		return ""
	}
	return "ssh as " + strings.Join(slices.Sorted(slices.Values(f.Logins)), ", ")
}

// Issue is a screen as agetty takes it: a backslash begins an escape there.
func Issue(screen string) []byte { return []byte(strings.ReplaceAll(screen, `\`, `\\`)) }

// clean makes one line of s for the console.
func clean(s string) string {
	return token.Hide(agentapi.Printable(strings.Join(strings.Fields(s), " ")))
}
