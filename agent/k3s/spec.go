package k3s

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/cap"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Spec is the container that is wanted.
type Spec struct {
	Role   Role
	UID    string // cluster
	Image  string // name in containerd
	Digest string // of the manifest, where the reference fixes it; "" otherwise
	Args   []string
	Env    map[string]string
	CA     string `json:",omitempty"` // hash of the CA that a worker trusts: k3s looks at it, and at its token, once
}

// Hash tells two wanted containers apart: another flag, environment, image or
// CA is a reason to restart k3s, anything else is not.
func (s Spec) Hash() string {
	raw, err := json.Marshal(s) // maps are written in key order
	if err != nil {
		panic("k3s: a Spec always encodes: " + err.Error())
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:16])
}

// DefaultCgroup is outside every unit's, so that systemd stops neither k3s with
// the agent nor with containerd.
const DefaultCgroup = "/kairos/k3s"

// hostPath is the PATH of the host's programs, appended to the image's own:
// k3s calls iptables, mount and modprobe.
var hostPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// sharedDirs are the host's directories that k3s and its kubelet see as they are: what a
// machine keeps, and where it mounts. The kubelet looks at paths that pods name, and binds
// parts of them, in its own root: whatever is not shown there is missing, or another
// thing. They arrive with what is mounted below, and follow later mounts of the host, so
// that nothing stays busy because of k3s.
var sharedDirs = []string{
	"/proc", "/sys", "/dev", "/run", "/tmp",
	"/var", "/home", "/root", "/opt", "/srv", "/mnt", "/media", "/usr/local",
	"/etc/rancher",
}

// kubeletDir is the one directory whose mounts must reach the host: containerd starts pods with them.
const kubeletDir = "/var/lib/kubelet"

// hostFiles are shown read-only where the host has them.
var hostFiles = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/machine-id", "/etc/os-release", "/etc/localtime", "/lib/modules"}

// imageConfig is what the image says about running it.
type imageConfig struct {
	Entrypoint []string
	Env        []string
}

// host is what the machine gives to the container.
type host struct {
	capabilities []string
	cgroup       string
}

// runtimeSpec builds the OCI runtime specification of a privileged container.
func runtimeSpec(s Spec, image imageConfig, h host) *specs.Spec {
	entry := image.Entrypoint
	if len(entry) == 0 {
		entry = []string{"/bin/k3s"}
	}
	return &specs.Spec{
		Version: "1.0.2", // the newest that runc 1.1 takes without asking
		Root:    &specs.Root{Path: "rootfs"},
		Mounts:  mounts(),
		Process: &specs.Process{
			Args: append(slices.Clone(entry), s.Args...),
			Env:  environment(image.Env, s.Env),
			Cwd:  "/",
			Capabilities: &specs.LinuxCapabilities{
				Bounding: h.capabilities, Effective: h.capabilities, Permitted: h.capabilities, Inheritable: h.capabilities,
			},
			// No OOM score and no limits of its own: both are inherited from
			// containerd, and asking for better ones needs a capability that a
			// machine inside a container may not have.
		},
		Linux: &specs.Linux{
			CgroupsPath: h.cgroup,
			// Only the mounts are its own. In a PID namespace of its own k3s would
			// also think that it owns the machine's cgroups.
			Namespaces:        []specs.LinuxNamespace{{Type: specs.MountNamespace}},
			RootfsPropagation: "rshared",
			Resources:         &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}},
		},
	}
}

func mounts() []specs.Mount {
	var out []specs.Mount
	for _, d := range sharedDirs {
		out = append(out, specs.Mount{Destination: d, Source: d, Type: "bind", Options: []string{"rbind", "rw", "rslave"}})
	}
	out = append(out, specs.Mount{Destination: kubeletDir, Source: kubeletDir, Type: "bind", Options: []string{"rbind", "rw", "rshared"}})
	for _, p := range hostFiles {
		source, err := filepath.EvalSymlinks(p)
		if err != nil {
			continue // not on this host; k3s does without
		}
		out = append(out, specs.Mount{Destination: p, Source: source, Type: "bind", Options: []string{"rbind", "ro", "rslave"}})
	}
	return out
}

// prepareDirs makes the directories that are shared.
func prepareDirs() error {
	for _, d := range append(slices.Clone(sharedDirs), kubeletDir) {
		if _, err := os.Stat(d); errors.Is(err, fs.ErrNotExist) {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// environment is the image's, with the user's over it. The image's own search for the
// firewall's kind chooses the old one where there are no rules yet, beside ours.
func environment(image []string, user map[string]string) []string {
	env := map[string]string{"IPTABLES_MODE": "nft"}
	for _, kv := range image {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	maps.Copy(env, user)
	path := filepath.SplitList(env["PATH"])
	for _, d := range hostPath {
		if !slices.Contains(path, d) {
			path = append(path, d)
		}
	}
	env["PATH"] = strings.Join(path, string(filepath.ListSeparator))
	out := make([]string, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}

// hostCapabilities returns what the machine's first process may do: privileged
// means as much as the machine has, and no more can be had inside a container.
func hostCapabilities() ([]string, error) {
	f, err := os.Open("/proc/1/status")
	if err != nil {
		return nil, err
	}
	sets, err := cap.ParseProcPIDStatus(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	names, _ := cap.FromBitmap(sets[cap.Bounding])
	return names, nil
}
