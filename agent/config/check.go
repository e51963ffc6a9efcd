package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/token"
)

// Limits of values.
const (
	minMTU, maxMTU             = 1280, 9000 // IPv6 needs 1280 (RFC 8200, section 5)
	maxLabel                   = 63         // RFC 1035, section 2.3.4
	maxInterface               = 15         // IFNAMSIZ of Linux, without the final zero
	minCIDRBits, maxCIDRBits   = 8, 24
	maxPeers, maxListen        = 256, 16
	minHealth, maxHealth       = time.Minute, 6 * time.Hour
	notInThisVersion           = "not in this version"
	exampleListen, examplePeer = "0.0.0.0:4171", "192.0.2.7:4171"
)

// Ranges that belong to Kubernetes inside a cluster.
var reserved = map[string]netip.Prefix{
	"pod":     api.PodRange,
	"service": api.ServiceRange,
}

// checks is what a value must satisfy beyond its type, by key.
var checks = map[string]func(v any) (reason, suggest string){
	root + ".network_token":     func(v any) (string, string) { return checkToken(v.(token.Token)) },
	root + ".network_id":        func(v any) (string, string) { return checkNetworkID(v.(string)) },
	root + ".role":              func(v any) (string, string) { return oneOf(string(v.(Role)), roles) },
	root + ".log_level":         func(v any) (string, string) { return oneOf(string(v.(LogLevel)), logLevels) },
	root + ".overlay.interface": func(v any) (string, string) { return checkInterface(v.(string)) },
	root + ".overlay.cidr":      func(v any) (string, string) { return checkCIDR(v.(netip.Prefix)) },
	root + ".overlay.listen":    func(v any) (string, string) { return checkListenList(v.([]netip.AddrPort)) },
	root + ".overlay.peers":     func(v any) (string, string) { return checkCount(len(v.([]string)), maxPeers) },
	root + ".overlay.dht":       func(v any) (string, string) { return refuseTrue(v.(bool)) },
	root + ".overlay.relay":     func(v any) (string, string) { return refuseTrue(v.(bool)) },
	root + ".overlay.mtu":       func(v any) (string, string) { return checkMTU(v.(int)) },
	root + ".cluster.uid":       func(v any) (string, string) { return checkUID(v.(string)) },
	root + ".cluster.servers":   func(v any) (string, string) { return checkServers(v.(int)) },
	root + ".k3s.args":          func(v any) (string, string) { return checkArgs(v.([]string)) },
	root + ".k3s.image":         func(v any) (string, string) { return checkImage(v.(string)) },
	root + ".os.image":          func(v any) (string, string) { return checkImage(v.(string)) },
	root + ".os.health_timeout": func(v any) (string, string) { return checkHealthTimeout(v.(time.Duration)) },
}

// itemChecks is what each item of a list must satisfy, by the list's key.
var itemChecks = map[string]func(item string) (reason, suggest string){
	root + ".overlay.listen": checkListen,
	root + ".overlay.peers":  checkPeer,
	root + ".k3s.args":       checkArg,
}

var (
	roles     = []string{string(RoleAuto), string(RoleMaster), string(RoleWorker)}
	logLevels = []string{string(LogDebug), string(LogInfo), string(LogWarn), string(LogError)}
)

// synonyms are words that people use for one of ours.
var synonyms = map[string]string{
	"server": "master", "control-plane": "master", "controlplane": "master", "controller": "master", "agent": "worker", "node": "worker",
	"auto": `""`, "none": `""`, "warning": "warn", "trace": "debug", "err": "error", "fatal": "error",
}

func oneOf(v string, valid []string) (string, string) {
	if slices.Contains(valid, v) {
		return "", ""
	}
	quoted := make([]string, len(valid))
	for i, s := range valid {
		quoted[i] = s
		if s == "" {
			quoted[i] = `""`
		}
	}
	suggest := nearest(v, valid)
	if s, ok := synonyms[strings.ToLower(v)]; ok && slices.Contains(quoted, s) {
		suggest = s
	}
	return fmt.Sprintf("%q is not one of %s", shorten(v), strings.Join(quoted, ", ")), suggest
}

func checkToken(t token.Token) (string, string) {
	if t.IsZero() {
		return token.ErrEmpty.Error(), ""
	}
	return "", ""
}

func checkNetworkID(s string) (string, string) {
	if isLabel(s) {
		return "", ""
	}
	fixed := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		default:
			return '-'
		}
	}, s), "-")
	if !isLabel(fixed) {
		fixed = ""
	}
	return fmt.Sprintf("%q is not a DNS label: 1 to %d of a-z, 0-9 and -, not at the ends", shorten(s), maxLabel), fixed
}

// checkUID takes a cluster's UID as everything shows it, or none.
func checkUID(s string) (string, string) {
	if s == "" || len(s) == 32 && strings.Trim(s, "0123456789abcdef") == "" {
		return "", ""
	}
	fixed := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(s), "-", ""))
	if len(fixed) != 32 || strings.Trim(fixed, "0123456789abcdef") != "" {
		fixed = ""
	}
	return fmt.Sprintf("%q is not the uid of a cluster: 32 of 0-9 and a-f, as `kairos status` shows it", shorten(s)), fixed
}

// isLabel reports whether s is a lower-case DNS label (RFC 1123, section 2.1).
func isLabel(s string) bool {
	if len(s) == 0 || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}

func checkInterface(s string) (string, string) {
	switch {
	case s == "":
		return "is empty: leave the key out for the default", ""
	case len(s) > maxInterface:
		return fmt.Sprintf("%q has %d characters, the kernel takes %d", shorten(s), len(s), maxInterface), s[:maxInterface]
	case slices.Contains([]string{"lo", ".", "..", "all", "default"}, s):
		return fmt.Sprintf("%q cannot be used as an interface name", s), ""
	case strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	}):
		return fmt.Sprintf("%q may hold only letters, digits, -, _ and .", shorten(s)), ""
	}
	return "", ""
}

func checkCIDR(p netip.Prefix) (string, string) {
	switch {
	case !p.Addr().Is4():
		return fmt.Sprintf("%s is not IPv4: the IPv6 range always follows from the token", p), ""
	case p.Bits() < minCIDRBits || p.Bits() > maxCIDRBits:
		return fmt.Sprintf("%s: the range must be /%d to /%d", p, minCIDRBits, maxCIDRBits), ""
	case p != p.Masked():
		return fmt.Sprintf("%s has bits set behind the mask", p), p.Masked().String()
	case !p.Addr().IsPrivate() && !netip.MustParsePrefix("100.64.0.0/10").Contains(p.Addr()):
		return fmt.Sprintf("%s is public: take a private range (10/8, 172.16/12, 192.168/16, 100.64/10)", p), ""
	}
	for name, r := range reserved {
		if p.Overlaps(r) {
			return fmt.Sprintf("%s overlaps the %s range %s of the cluster", p, name, r), ""
		}
	}
	return "", ""
}

func checkMTU(n int) (string, string) {
	if n == 0 || n >= minMTU && n <= maxMTU {
		return "", ""
	}
	return fmt.Sprintf("%d is not from %d to %d", n, minMTU, maxMTU), ""
}

func checkServers(n int) (string, string) {
	if n == 1 {
		return "", ""
	}
	if n > 1 {
		return fmt.Sprintf("%d servers: %s, only 1", n, notInThisVersion), ""
	}
	return fmt.Sprintf("%d: want 1; for no Kubernetes at all set cluster.enabled to false", n), ""
}

func checkHealthTimeout(d time.Duration) (string, string) {
	if d >= minHealth && d <= maxHealth {
		return "", ""
	}
	return fmt.Sprintf("%s is not from %s to %s", durationText(d), durationText(minHealth), durationText(maxHealth)), ""
}

// durationText writes a duration as people do: 10m, not 10m0s.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func refuseTrue(v bool) (string, string) {
	if v {
		return notInThisVersion + ": remove it or set it to false", ""
	}
	return "", ""
}

func checkCount(n, limit int) (string, string) {
	if n > limit {
		return fmt.Sprintf("%d entries, at most %d are taken", n, limit), ""
	}
	return "", ""
}

func checkListen(s string) (string, string) {
	ap, err := netip.ParseAddrPort(s)
	switch {
	case err == nil && ap.Addr().Zone() != "":
		return fmt.Sprintf("%q has a zone: take the address without it", shorten(s)), ""
	case err == nil && ap.Addr().IsMulticast():
		return fmt.Sprintf("%q is a multicast address", shorten(s)), ""
	case err == nil:
		return "", ""
	}
	suggest := ""
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		suggest = netip.AddrPortFrom(a, 4171).String()
	} else if port, err := strconv.ParseUint(strings.TrimPrefix(s, ":"), 10, 16); err == nil {
		suggest = fmt.Sprintf("0.0.0.0:%d", port)
	}
	return fmt.Sprintf("%q is not address:port, such as %s", shorten(s), exampleListen), suggest
}

func checkListenList(list []netip.AddrPort) (string, string) {
	if len(list) == 0 {
		return "is empty: leave the key out for the default", ""
	}
	for i, ap := range list {
		if ap.Port() != 0 && slices.Contains(list[:i], ap) {
			return fmt.Sprintf("%s is there twice", ap), ""
		}
	}
	return checkCount(len(list), maxListen)
}

func checkImage(s string) (string, string) {
	switch {
	case strings.ContainsAny(s, " \t\n\r"):
		return fmt.Sprintf("%q has white space in it", shorten(s)), ""
	case strings.Contains(s, "://"):
		_, rest, _ := strings.Cut(s, "://")
		return fmt.Sprintf("%q: an image reference has no scheme", shorten(s)), rest
	case strings.HasPrefix(s, "oci:") && !strings.HasPrefix(s, "oci:/"):
		return fmt.Sprintf("%q: the path of a layout must be absolute", shorten(s)), "oci:/" + strings.TrimPrefix(s, "oci:")
	}
	return "", ""
}
