package k3s

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/agent/k3s/k3stest"
	"github.com/kairos-io/kairos/agent/store"
)

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

func writeCA(t *testing.T, f Files, ca k3stest.Authority) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(f.ServerCA()), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.ServerCA(), ca.File, 0o600); err != nil {
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
	born := k3stest.NewAuthority()
	writeCA(t, server, born)
	j, err := server.JoinInfo("u")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(j.Token, "K10"+j.CA.Hash()+"::node:") || len(j.Token) != 3+64+7+64 {
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
	if err != nil || got.UID != "u" || got.CA.Hash() != j.CA.Hash() || got.Server != j.Server || got.Token != "" {
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
	other := j
	other.Token = "K10" + strings.Repeat("0", 64) + "::node:x"
	if err := worker.SaveJoin(other); err == nil {
		t.Error("a token of another CA was saved")
	}

	// What was trusted first says what is trusted next, whatever became of the token.
	writeCA(t, server, k3stest.NewAuthority())
	if other, err = server.JoinInfo("u"); err != nil {
		t.Fatal(err)
	}
	if err := worker.SaveJoin(other); !errors.Is(err, ErrOtherAuthority) {
		t.Errorf("another CA: %v", err)
	}
	writeCA(t, server, born.Rotated())
	if other, err = server.JoinInfo("u"); err != nil {
		t.Fatal(err)
	}
	if err := worker.SaveJoin(other); err != nil {
		t.Errorf("the rotated CA: %v", err)
	}
	if got, err := worker.ReadJoin(); err != nil || got.CA.Hash() != other.CA.Hash() || got.CA.Hash() == j.CA.Hash() {
		t.Errorf("got %v, %v", got, err)
	}
	other.UID, other.CA, other.Token = "another cluster", j.CA, j.Token
	if err := worker.SaveJoin(other); err != nil {
		t.Errorf("another cluster's: %v", err)
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

func TestManifestIsWrittenWhenItDiffers(t *testing.T) {
	f := Files{Dir: t.TempDir()}
	path := filepath.Join(f.Manifests(), "a.yaml")
	for _, text := range []string{"one", "two"} {
		if err := f.WriteManifest("a.yaml", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got != text {
			t.Errorf("got %q", got)
		}
	}
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := errors.Join(os.Chtimes(path, old, old), f.WriteManifest("a.yaml", []byte("two"))); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || !info.ModTime().Equal(old) {
		t.Errorf("written although nothing changed: k3s would apply it again (%v)", err)
	}
}

// A disk that cannot be read is not an empty disk.
func TestUnreadableIsNotAbsent(t *testing.T) {
	f := Files{Dir: t.TempDir()}
	in := func(parts ...string) string { return filepath.Join(append([]string{f.Dir}, parts...)...) }
	for _, dir := range []string{in("kairos", "cluster.json"), in("kairos", "join.json"), in("server", "tls", "server-ca.crt")} {
		if err := os.MkdirAll(dir, 0o700); err != nil { // reading a directory fails
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(in("server", "db"), nil, 0o600); err != nil { // so does looking below a file
		t.Fatal(err)
	}
	if _, found, err := f.ReadMarker(); err == nil || found {
		t.Errorf("marker: %v, %v", found, err)
	}
	if _, err := f.ReadJoin(); err == nil {
		t.Error("join information: taken for absent")
	}
	if there, err := f.HasDatastore(); err == nil || there {
		t.Errorf("datastore: %v, %v", there, err)
	}
	if _, err := f.Authority(); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("CA: %v", err)
	}
}

// The names of the files are in what is said of them.
func TestFilesOfDamagedAuthorities(t *testing.T) {
	f := Files{Dir: t.TempDir()}
	writeCA(t, f, k3stest.Authority{File: []byte("half writ")})
	if _, err := f.Authority(); err == nil || !strings.Contains(err.Error(), f.ServerCA()) {
		t.Errorf("got %v", err)
	}
	if err := f.write(f.own(joinName), []byte(`{"uid":"u","ca":"half writ"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadJoin(); err == nil || !strings.Contains(err.Error(), f.own(joinName)) {
		t.Errorf("got %v", err)
	}
	if err := f.write(f.own(joinName), []byte(`{"uid":"u","ca_hash":"beef"}`)); err != nil {
		t.Fatal(err)
	}
	if j, err := f.ReadJoin(); err != nil || j.UID != "" {
		t.Errorf("an earlier version's is fetched anew: %v, %v", j, err)
	}
}

func TestFilesOfTheMachine(t *testing.T) {
	var f Files
	cert, key := f.ClientCA()
	for got, want := range map[string]string{
		f.ServerToken(): "/var/lib/rancher/k3s/kairos/server-token", f.JoinToken(): "/var/lib/rancher/k3s/kairos/join-token",
		f.ServerCA(): "/var/lib/rancher/k3s/server/tls/server-ca.crt", f.Manifests(): "/var/lib/rancher/k3s/server/manifests",
		cert: "/var/lib/rancher/k3s/server/tls/client-ca.crt", key: "/var/lib/rancher/k3s/server/tls/client-ca.key",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
