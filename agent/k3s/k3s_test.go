package k3s

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/agent/store"
)

func TestArgs(t *testing.T) {
	f := Flags{NodeName: "n1-abcdef", Address: netip.MustParseAddr("10.77.1.2"), DNSName: "n1-abcdef.kairos.internal",
		Server: netip.MustParseAddr("10.77.0.9"), Socket: "/run/containerd/containerd.sock", Files: Files{Dir: "/d"},
		Extra: []string{"--disable=traefik", "--disable", "servicelb", "--kubelet-arg", "max-pods=50", "--node-label=a=b", "--debug"}}
	for _, tc := range []struct {
		role      Role
		want, not []string
	}{
		{Server, []string{"server", "--flannel-backend=none", "--bind-address=10.77.1.2", "--tls-san=n1-abcdef.kairos.internal",
			"--token-file=/d/kairos/server-token", "--agent-token-file=/d/kairos/agent-token", "--disable=traefik", "servicelb"},
			[]string{"--server=https://10.77.0.9:6443"}},
		{Agent, []string{"agent", "--server=https://10.77.0.9:6443", "--token-file=/d/kairos/join-token", "--node-ip=10.77.1.2",
			"--kubelet-arg", "max-pods=50", "--node-label=a=b", "--debug"},
			[]string{"--flannel-backend=none", "--bind-address=10.77.1.2", "--disable=traefik", "--disable", "servicelb"}},
	} {
		f.Role = tc.role
		args := f.Args()
		for _, w := range tc.want {
			if !slices.Contains(args, w) {
				t.Errorf("%s: %q is missing in %q", tc.role, w, args)
			}
		}
		for _, n := range tc.not {
			if slices.Contains(args, n) {
				t.Errorf("%s: %q does not belong into %q", tc.role, n, args)
			}
		}
	}
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestTokens(t *testing.T) {
	f := Files{Dir: t.TempDir()}
	if err := f.HasTokens(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	if err := f.EnsureTokens(); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(f.ServerToken())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.EnsureTokens(), f.HasTokens()); err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(f.ServerToken())
	if err != nil || string(again) != string(first) || len(first) != 65 {
		t.Errorf("the server token changed or is too short: %d bytes, %v", len(again), err)
	}
	agentToken, err := os.ReadFile(f.AgentToken())
	if err != nil || string(agentToken) == string(first) {
		t.Errorf("both tokens are alike: %v", err)
	}
	if m := mode(t, f.ServerToken()); m != 0o600 {
		t.Errorf("mode %o", m)
	}
	if m := mode(t, filepath.Dir(f.ServerToken())); m != 0o700 {
		t.Errorf("directory mode %o", m)
	}
}

func writeCA(t *testing.T, f Files) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(f.ServerCA()), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.ServerCA(), []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestJoin(t *testing.T) {
	server, worker := Files{Dir: t.TempDir()}, Files{Dir: t.TempDir()}
	if err := server.EnsureTokens(); err != nil {
		t.Fatal(err)
	}
	if _, err := server.JoinInfo("u"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a CA: %v", err)
	}
	writeCA(t, server)
	j, err := server.JoinInfo("u")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(j.Token, "K10"+j.CAHash+"::node:") || len(j.Token) != 3+64+7+64 {
		t.Errorf("the token has a wrong form (%d characters)", len(j.Token))
	}
	if strings.Contains(j.String(), j.Token) {
		t.Error("the token shows itself")
	}
	j.Server = netip.MustParseAddr("10.77.0.1")
	if err := worker.SaveJoin(j); err != nil {
		t.Fatal(err)
	}
	got, err := worker.ReadJoin()
	if err != nil || got.UID != "u" || got.CAHash != j.CAHash || got.Server != j.Server || got.Token != "" {
		t.Errorf("got %v, %v", got, err)
	}
	if m := mode(t, worker.JoinToken()); m != 0o600 {
		t.Errorf("mode %o", m)
	}
	if err := os.WriteFile(worker.JoinToken(), []byte("K10other::node:x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := worker.ReadJoin(); err != nil || got.UID != "" {
		t.Errorf("files that do not match were taken: %v, %v", got, err)
	}
	j.CAHash = strings.Repeat("0", 64)
	if err := worker.SaveJoin(j); err == nil {
		t.Error("a token of another CA was saved")
	}
}

func TestMarkerAndDatastore(t *testing.T) {
	f := Files{Dir: t.TempDir()}
	if _, found, err := f.ReadMarker(); found || err != nil {
		t.Errorf("empty: %v, %v", found, err)
	}
	want := Marker{UID: "u", Epoch: 3, Role: store.Server}
	if err := f.WriteMarker(want); err != nil {
		t.Fatal(err)
	}
	if got, found, err := f.ReadMarker(); err != nil || !found || got.UID != "u" || got.Epoch != 3 || got.Role != store.Server {
		t.Errorf("got %+v, %v, %v", got, found, err)
	}
	if err := os.WriteFile(f.own("cluster.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.ReadMarker(); err == nil {
		t.Error("a broken marker was taken for none")
	}
	if there, err := f.HasDatastore(); there || err != nil {
		t.Errorf("no datastore: %v, %v", there, err)
	}
	if err := os.MkdirAll(filepath.Join(f.Dir, "server", "db", "etcd", "member"), 0o700); err != nil {
		t.Fatal(err)
	}
	if there, err := f.HasDatastore(); !there || err != nil {
		t.Errorf("etcd: %v, %v", there, err)
	}
}

func TestSpecHash(t *testing.T) {
	base := Spec{Role: Server, UID: "u", Image: "i", Args: []string{"a", "b"}, Env: map[string]string{"X": "1", "Y": "2"}}
	same := Spec{Role: Server, UID: "u", Image: "i", Args: []string{"a", "b"}, Env: map[string]string{"Y": "2", "X": "1"}}
	if base.Hash() != same.Hash() {
		t.Error("the same container has two hashes")
	}
	for name, edit := range map[string]func(*Spec){
		"role": func(s *Spec) { s.Role = Agent }, "image": func(s *Spec) { s.Image = "j" }, "digest": func(s *Spec) { s.Digest = "d" },
		"argument": func(s *Spec) { s.Args = []string{"a"} }, "environment": func(s *Spec) { s.Env = nil },
		"joined arguments": func(s *Spec) { s.Args = []string{"ab"} },
	} {
		other := same
		edit(&other)
		if other.Hash() == base.Hash() {
			t.Errorf("another %s has the same hash", name)
		}
	}
}

func TestRuntimeSpec(t *testing.T) {
	s := runtimeSpec(Spec{Args: []string{"server"}, Env: map[string]string{"HTTP_PROXY": "p"}},
		imageConfig{Entrypoint: []string{"/bin/k3s"}, Env: []string{"PATH=/image/bin:/bin", "A=b"}}, []string{"CAP_NET_ADMIN"})
	if got := strings.Join(s.Process.Args, " "); got != "/bin/k3s server" {
		t.Errorf("args %q", got)
	}
	if s.Process.OOMScoreAdj != nil || s.Process.Rlimits != nil {
		t.Error("asks for a score or limits that it may not get")
	}
	env := strings.Join(s.Process.Env, "\n")
	if !strings.Contains(env, "PATH=/image/bin:/bin:/usr/local/sbin") || !strings.Contains(env, "/usr/sbin") || !strings.Contains(env, "HTTP_PROXY=p") {
		t.Errorf("environment %q", env)
	}
	for _, m := range s.Mounts {
		if m.Destination == kubeletDir && !slices.Contains(m.Options, "rshared") {
			t.Error("volumes that kubelet mounts would not reach the host")
		}
		if m.Destination != kubeletDir && slices.Contains(m.Options, "rshared") {
			t.Errorf("%s is shared both ways", m.Destination)
		}
	}
	for _, n := range s.Linux.Namespaces {
		if n.Type != "mount" {
			t.Errorf("a %s namespace of its own", n.Type)
		}
	}
}

func TestParseNode(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		cidr     string
		ready    bool
		fail     bool
	}{
		{"new", `{"spec":{},"status":{"conditions":[{"type":"Ready","status":"False"}]}}`, "", false, false},
		{"ready", `{"spec":{"podCIDR":"10.42.3.0/24"},"status":{"conditions":[{"type":"MemoryPressure","status":"True"},{"type":"Ready","status":"True"}]}}`, "10.42.3.0/24", true, false},
		{"not JSON", `<html>`, "", false, true},
		{"nonsense", `{"spec":{"podCIDR":"x"}}`, "", false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n, err := parseNode([]byte(tc.in))
			if (err != nil) != tc.fail || n.Ready != tc.ready {
				t.Fatalf("got %+v, %v", n, err)
			}
			if tc.cidr != "" && n.PodCIDR != netip.MustParsePrefix(tc.cidr) {
				t.Errorf("got %s", n.PodCIDR)
			}
		})
	}
}

func TestRotate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k3s.log")
	if err := rotate(path, 4); err != nil {
		t.Errorf("no file: %v", err)
	}
	for _, tc := range []struct{ text, now, old string }{{"abc", "abc", ""}, {"abcdef", "", "abcdef"}} {
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := rotate(path, 4); err != nil {
			t.Fatal(err)
		}
		now, err := os.ReadFile(path)
		if err != nil || string(now) != tc.now {
			t.Errorf("now %q, %v", now, err)
		}
		old, err := os.ReadFile(path + ".1")
		if string(old) != tc.old || (tc.old != "" && err != nil) {
			t.Errorf("old %q, %v", old, err)
		}
	}
}

func TestNoRuntime(t *testing.T) {
	r, err := Open(Options{Socket: filepath.Join(t.TempDir(), "none.sock")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := r.Status(t.Context()); !errors.Is(err, ErrNoRuntime) {
		t.Errorf("got %v, want ErrNoRuntime", err)
	}
}
