package k3s

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func testSpec(entry []string, env ...string) *specs.Spec {
	return runtimeSpec(Spec{Args: []string{"server", "--debug"}, Env: map[string]string{"HTTP_PROXY": "p", "B": "user"}},
		imageConfig{Entrypoint: entry, Env: env}, host{[]string{"CAP_NET_ADMIN"}, DefaultCgroup})
}

// The container as a whole, apart from the mounts.
func TestRuntimeSpec(t *testing.T) {
	s := testSpec([]string{"/bin/k3s"}, "PATH=/image/bin:/bin", "A=image", "B=image")
	s.Mounts = nil
	raw, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
 "ociVersion": "1.0.2",
 "process": {
  "user": {
   "uid": 0,
   "gid": 0
  },
  "args": [
   "/bin/k3s",
   "server",
   "--debug"
  ],
  "env": [
   "A=image",
   "B=user",
   "HTTP_PROXY=p",
   "IPTABLES_MODE=nft",
   "PATH=/image/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin"
  ],
  "cwd": "/",
  "capabilities": {
   "bounding": [
    "CAP_NET_ADMIN"
   ],
   "effective": [
    "CAP_NET_ADMIN"
   ],
   "inheritable": [
    "CAP_NET_ADMIN"
   ],
   "permitted": [
    "CAP_NET_ADMIN"
   ]
  }
 },
 "root": {
  "path": "rootfs"
 },
 "linux": {
  "resources": {
   "devices": [
    {
     "allow": true,
     "access": "rwm"
    }
   ]
  },
  "cgroupsPath": "/kairos/k3s",
  "namespaces": [
   {
    "type": "mount"
   }
  ],
  "rootfsPropagation": "rshared"
 }
}`
	if string(raw) != want {
		t.Errorf("got\n%s", raw)
	}
}

func TestRuntimeSpecOfAnImageWithoutEntrypoint(t *testing.T) {
	if got := testSpec(nil).Process.Args[0]; got != "/bin/k3s" {
		t.Errorf("runs %q", got)
	}
}

func TestMounts(t *testing.T) {
	seen := map[string]specs.Mount{}
	for _, m := range mounts() {
		if _, twice := seen[m.Destination]; twice {
			t.Errorf("%s is mounted twice", m.Destination)
		}
		if m.Type != "bind" || !slices.Contains(m.Options, "rbind") {
			t.Errorf("%s: %+v", m.Destination, m)
		}
		seen[m.Destination] = m
	}
	for _, d := range append(slices.Clone(sharedDirs), kubeletDir) {
		m, ok := seen[d]
		if !ok || !slices.Contains(m.Options, "rw") || m.Source != d {
			t.Errorf("%s: %+v", d, m)
		}
		// Only volumes that kubelet mounts must reach the host.
		want := map[bool]string{true: "rshared", false: "rslave"}[d == kubeletDir]
		if !slices.Contains(m.Options, want) {
			t.Errorf("%s: %q, want %s", d, m.Options, want)
		}
	}
	for _, f := range hostFiles {
		m, ok := seen[f]
		if _, err := os.Stat(f); err != nil {
			if ok {
				t.Errorf("%s is mounted and not there", f)
			}
			continue
		}
		if real, err := filepath.EvalSymlinks(f); err != nil || m.Source != real || !slices.Contains(m.Options, "ro") {
			t.Errorf("%s: %+v, %v", f, m, err)
		}
	}
}

// What a machine may not do itself, it cannot give to k3s.
func TestHostCapabilities(t *testing.T) {
	got, err := hostCapabilities()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(got, "CAP_CHOWN") || slices.ContainsFunc(got, func(c string) bool { return !strings.HasPrefix(c, "CAP_") }) {
		t.Errorf("got %q", got)
	}
}

// The hash decides whether a running k3s is restarted.
func TestSpecHash(t *testing.T) {
	base := Spec{Role: Server, UID: "u", Image: "i", Args: []string{"a", "b"}, Env: map[string]string{"X": "1", "Y": "2"}}
	same := Spec{Role: Server, UID: "u", Image: "i", Args: []string{"a", "b"}, Env: map[string]string{"Y": "2", "X": "1"}}
	if base.Hash() != same.Hash() {
		t.Error("the same container has two hashes")
	}
	for name, edit := range map[string]func(*Spec){
		"role": func(s *Spec) { s.Role = Agent }, "cluster": func(s *Spec) { s.UID = "v" }, "image": func(s *Spec) { s.Image = "j" },
		"digest": func(s *Spec) { s.Digest = "d" }, "argument": func(s *Spec) { s.Args = []string{"a"} },
		"order of arguments": func(s *Spec) { s.Args = []string{"b", "a"} }, "environment": func(s *Spec) { s.Env = nil },
		"joined arguments": func(s *Spec) { s.Args = []string{"ab"} },
	} {
		other := same
		edit(&other)
		if other.Hash() == base.Hash() {
			t.Errorf("another %s has the same hash", name)
		}
	}
}
