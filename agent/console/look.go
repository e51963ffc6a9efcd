package console

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/overlay/api"
)

// Where Look finds things, below the root of the file system.
const (
	appliedConfig = "run/kairos/config/" + config.KairosFile
	hostKeys      = "etc/ssh/ssh_host_*_key.pub"
)

// askTimeout bounds what the overlay may take to answer; a console must not hang with it.
const askTimeout = 5 * time.Second

// Refused notes why the configuration is not taken; nil takes that back. A machine
// that has none has no wrong one, unless an earlier one is kept.
func Refused(n agentapi.Notes, err error, kept bool) error {
	var problems config.Problems
	var lines []string
	switch {
	case errors.As(err, &problems):
		lines = problems.Below(n.Root)
	case err != nil && (kept || !errors.Is(err, config.ErrNoBlock)):
		lines = strings.Split(err.Error(), "\n")
	}
	return n.Set("kairos-config", agentapi.Problem, lines)
}

// Machine is what Look looks at.
type Machine struct {
	Root    string      // of its file system; "/" outside of tests
	Version string      // of this program
	Overlay *api.Client // its socket
}

// Look gathers the facts. What cannot be found out is left out of them: a
// console that says less is better than none.
func (m Machine) Look(ctx context.Context) Facts {
	f := Facts{Version: m.Version, HostKeys: m.hostKeys(), Logins: m.logins()}
	f.Hostname = m.line("proc/sys/kernel/hostname")
	notes := agentapi.Notes{Root: m.Root}
	f.Problems, f.Notes = notes.All(agentapi.Problem), notes.All(agentapi.Note)
	overlayName, enabled := "kairos0", true
	if cfg, err := config.LoadFile(filepath.Join(m.Root, appliedConfig)); err == nil {
		f.Configured = true
		f.Network = fingerprint(cfg.NetworkToken.Keys().Genesis)
		f.Cluster = cfg.NetworkID
		overlayName, enabled = cfg.Overlay.Interface, cfg.Cluster.Enabled
	} else {
		var problems []string
		problems, f.Waiting = m.unmerged()
		f.Problems = append(f.Problems, problems...)
	}
	f.Problems = distinct(f.Problems)
	m.lookOverlay(ctx, &f, enabled)
	if f.Configured && !enabled {
		f.Role, f.Cluster = "none, cluster.enabled is false", ""
	}
	if own := notes.All(agentapi.Waiting); len(own) > 0 {
		f.Waiting = own[0]
	}
	f.Underlay = underlayOf(overlayName)
	return f
}

// distinct drops repetitions: several units may stumble over one line.
func distinct(lines []string) []string {
	var out []string
	for _, l := range lines {
		if !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

// lookOverlay asks the network, which also knows what the agent waits for.
func (m Machine) lookOverlay(ctx context.Context, f *Facts, cluster bool) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	status, err := m.Overlay.Status(ctx)
	if err != nil {
		return
	}
	f.Overlay = &Overlay{Interface: status.Interface, Addrs: status.Addresses}
	if status.Waiting != "" { // what the network waits for
		f.Waiting = "waiting for " + status.Waiting
	}
	if list, err := m.Overlay.Nodes(ctx, 0, 0); err == nil {
		for _, n := range list.Nodes {
			switch {
			case n.Self:
				f.Role = n.Annotations[api.NoteRole]
				if f.Waiting == "" {
					f.Waiting = n.Annotations[api.NoteWaiting]
				}
				continue
			case n.Connected:
				f.Overlay.Connected++
			}
			f.Overlay.Known++
		}
	}
	if !cluster {
		return
	}
	c, err := m.Overlay.Cluster(ctx)
	var none *api.Error
	switch {
	case err == nil && c.Conflict != "":
		f.Notes = append(f.Notes, c.Conflict)
	case err == nil && f.Waiting == "":
		f.Waiting = c.Waiting
	case errors.As(err, &none) && none.Status == http.StatusNotFound && f.Waiting == "":
		f.Waiting = none.Message
	}
}

// unmerged says why there is no merged configuration: what kairos-config.service
// refuses, found out anew since its own output went to the journal only, or what
// it waits for. Both are empty when nobody has given this machine one.
func (m Machine) unmerged() (wrong []string, waiting string) {
	files, err := config.Sources(m.Root)
	if err != nil {
		return []string{err.Error()}, ""
	}
	_, err = config.Load(files...)
	var problems config.Problems
	switch {
	case err == nil:
		return nil, "waiting for kairos-config to check the configuration"
	case errors.Is(err, config.ErrNoBlock) && !errors.As(err, &problems): // no configuration is not a wrong one
		if m.exists("run/cloud-init/enabled") && !m.exists("run/cloud-init/result.json") {
			return nil, "waiting for cloud-init to read a configuration"
		}
		return nil, ""
	case !errors.As(err, &problems):
		return []string{err.Error()}, ""
	}
	return problems.Below(m.Root), ""
}

func (m Machine) exists(name string) bool {
	_, err := os.Stat(filepath.Join(m.Root, name))
	return err == nil
}

func (m Machine) line(name string) string {
	raw, err := os.ReadFile(filepath.Join(m.Root, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// hostKeys are the fingerprints of the machine's ssh keys as ssh-keygen -l and
// every ssh client show them.
func (m Machine) hostKeys() []string {
	files, err := filepath.Glob(filepath.Join(m.Root, hostKeys))
	if err != nil {
		return nil // the pattern is ours
	}
	var out []string
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(raw))
		if len(fields) < 2 {
			continue
		}
		blob, err := base64.StdEncoding.DecodeString(fields[1])
		if err != nil {
			continue
		}
		sum := sha256.Sum256(blob)
		kind := strings.ToUpper(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "ssh_host_"), "_key.pub"))
		out = append(out, "SHA256:"+base64.RawStdEncoding.EncodeToString(sum[:])+" ("+kind+")")
	}
	// One is enough to compare, and what clients ask for first.
	if i := slices.IndexFunc(out, func(s string) bool { return strings.HasSuffix(s, "(ED25519)") }); i >= 0 {
		return out[i : i+1]
	}
	return out
}

// logins are the users for whom there is an ssh key.
func (m Machine) logins() []string {
	files, err := filepath.Glob(filepath.Join(m.Root, "home/*/.ssh/authorized_keys"))
	if err != nil {
		return nil // the pattern is ours
	}
	var out []string
	for _, file := range append(files, filepath.Join(m.Root, "root/.ssh/authorized_keys")) {
		raw, err := os.ReadFile(file)
		if err == nil && hasKey(string(raw)) {
			out = append(out, filepath.Base(filepath.Dir(filepath.Dir(file))))
		}
	}
	return out
}

// hasKey reports whether a line is a key that lets somebody in: cloud-init
// leaves keys for root that only print a message.
func hasKey(text string) bool {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && line[0] != '#' && !strings.Contains(line, "no-port-forwarding,") {
			return true
		}
	}
	return false
}

// fingerprint is the beginning of the network's public name, for comparing by eye.
func fingerprint(genesis [32]byte) string {
	s := hex.EncodeToString(genesis[:8])
	return s[:4] + "-" + s[4:8] + "-" + s[8:12] + "-" + s[12:]
}

// underlayOf lists this machine's network cards that are up, without the
// overlay's interface and those of pods.
func underlayOf(overlay string) []Interface {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []Interface
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 || i.Name == overlay ||
			slices.ContainsFunc([]string{"cni", "veth"}, func(p string) bool { return strings.HasPrefix(i.Name, p) }) {
			continue
		}
		list := Interface{Name: i.Name}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has just gone
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
				list.Addrs = append(list.Addrs, p.Addr().Unmap())
			}
		}
		out = append(out, list)
	}
	return out
}
