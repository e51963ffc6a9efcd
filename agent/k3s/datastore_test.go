package k3s

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/kairos-io/kairos/agent/api"
)

var (
	older = api.K3s{Image: "k3s:v1.35.8-k3s1", Kubernetes: "v1.35.8+k3s1"}
	newer = api.K3s{Image: "k3s:v1.36.0-k3s1", Kubernetes: "v1.36.0+k3s1"}
)

// fileSet is the files below a directory: path to content, or "-> target".
type fileSet map[string]string

func (tr fileSet) write(t *testing.T, dir string) {
	t.Helper()
	for name, text := range tr {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func readFiles(t *testing.T, dir string) fileSet {
	t.Helper()
	out := fileSet{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		switch {
		case err != nil || d.IsDir():
			return err
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			out[name] = "-> " + target
			return err
		}
		raw, err := os.ReadFile(path)
		out[name] = string(raw)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return out
}

func same(t *testing.T, what string, got, want fileSet) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// what the earlier version had, and what the later one made of it.
var (
	earlier = fileSet{"db/state.db": "one", "db/state.db-wal": "w", "tls/server-ca.crt": "ca", "cred/passwd": "p", "token": "t"}
	later   = fileSet{"db/state.db": "two", "db/new": "n", "tls/server-ca.crt": "ca2", "cred/passwd": "p2", "token": "t2", "agent-token": "a2"}
)

// server makes the directory of a server whose data older has.
func server(t *testing.T) Files {
	t.Helper()
	f := Files{Dir: t.TempDir()}
	earlier.write(t, f.server())
	if err := f.SetRan(older); err != nil {
		t.Fatal(err)
	}
	return f
}

// upgraded is one whose data was copied, and that newer has since.
func upgraded(t *testing.T) Files {
	t.Helper()
	f := server(t)
	err := f.KeepDatastore(t.Context(), older, func() {})
	if err = errors.Join(err, f.SetRan(newer)); err != nil {
		t.Fatal(err)
	}
	for name := range earlier {
		if err := os.Remove(filepath.Join(f.server(), name)); err != nil {
			t.Fatal(err)
		}
	}
	later.write(t, f.server())
	return f
}

func versions(t *testing.T, f Files) Versions {
	t.Helper()
	v, err := f.Versions()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDatastoreOverAMinor(t *testing.T) {
	f := server(t)
	if v := versions(t, f); v.Ran != older || v.Kept != nil || v.Restoring {
		t.Errorf("before: %+v", v)
	}
	f = upgraded(t)
	if v := versions(t, f); v.Ran != newer || v.Kept == nil || *v.Kept != older || v.Restoring {
		t.Errorf("upgraded: %+v", v)
	}
	same(t, "upgraded", readFiles(t, f.server()), later)
	if err := f.RestoreDatastore(); err != nil {
		t.Fatal(err)
	}
	if v := versions(t, f); v.Ran != older || v.Kept != nil || v.Restoring {
		t.Errorf("put back: %+v", v)
	}
	got := readFiles(t, f.server())
	// k3s' file that the earlier version did not have is nobody's business.
	want := maps.Clone(earlier)
	want["agent-token"] = "a2"
	same(t, "put back", got, want)
	aside := maps.Clone(later)
	delete(aside, "agent-token")
	same(t, "aside", readFiles(t, f.own(undoneDir)), aside)

	f = upgraded(t)
	if err := errors.Join(f.DropKept(), f.DropKept()); err != nil {
		t.Fatal(err)
	}
	if v := versions(t, f); v.Ran != newer || v.Kept != nil {
		t.Errorf("found good: %+v", v)
	}
	same(t, "found good", readFiles(t, f.server()), later)
	if err := f.RestoreDatastore(); err == nil {
		t.Error("a copy that was dropped was put back")
	}
	same(t, "found good", readFiles(t, f.server()), later)
}

// Power fails between any two steps, and whoever comes next goes on.
func TestRestoreIsInterrupted(t *testing.T) {
	move := func(from, to string) func(Files) error {
		return func(f Files) error {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(f.dir(), to)), 0o700); err != nil {
				return err
			}
			return os.Rename(filepath.Join(f.dir(), from), filepath.Join(f.dir(), to))
		}
	}
	steps := []func(Files) error{move("kairos/kept", "kairos/restoring")}
	for _, item := range []string{"db", "tls", "cred", "token"} {
		steps = append(steps, move("server/"+item, "kairos/undone/"+item), move("kairos/restoring/"+item, "server/"+item))
	}
	steps = append(steps, func(f Files) error { return f.SetRan(older) }, move("kairos/restoring", "kairos/gone"))
	for n := range len(steps) {
		f := upgraded(t)
		for _, step := range steps[:n] {
			if err := step(f); err != nil {
				t.Fatal(err)
			}
		}
		if v := versions(t, f); v.Restoring != (n > 0) {
			t.Errorf("after %d steps: %+v", n, v)
		}
		if err := f.RestoreDatastore(); err != nil {
			t.Errorf("after %d steps: %v", n, err)
		}
		if v := versions(t, f); v.Ran != older || v.Kept != nil || v.Restoring {
			t.Errorf("after %d steps: %+v", n, v)
		}
		want := maps.Clone(earlier)
		want["agent-token"] = "a2"
		same(t, "put back", readFiles(t, f.server()), want)
	}
}

// A copy counts once it is whole: what an interruption leaves does not, and takes no
// space after the next try.
func TestHalfACopyIsNone(t *testing.T) {
	f := server(t)
	ctx, cancel := context.WithCancel(t.Context())
	looks := 0
	err := f.KeepDatastore(ctx, older, func() {
		if looks++; looks == 4 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	same(t, "given up", readFiles(t, f.own(unfinishedDir)), fileSet{})
	fileSet{"unfinished/db/state.db": "half", "gone/db/state.db": "half"}.write(t, f.own(""))
	if v := versions(t, f); v.Kept != nil {
		t.Errorf("half a copy counts: %+v", v)
	}
	if err := f.KeepDatastore(t.Context(), older, func() {}); err != nil {
		t.Fatal(err)
	}
	kept := readFiles(t, f.own(keptDir))
	delete(kept, ofName)
	same(t, "copy", kept, earlier)
	for _, dir := range []string{unfinishedDir, goneDir} {
		if _, err := os.Stat(f.own(dir)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}

// Modes, links, and what is no file.
func TestCopyOfADatastore(t *testing.T) {
	f := server(t)
	s := f.server()
	l, err := net.Listen("unix", filepath.Join(s, "db", "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	big := make([]byte, copyPiece+1)
	err = errors.Join(os.Chmod(filepath.Join(s, "token"), 0o640), os.Chmod(filepath.Join(s, "tls"), 0o710),
		os.Symlink("token", filepath.Join(s, "node-token")), os.WriteFile(filepath.Join(s, "db", "big"), big, 0o600))
	if err = errors.Join(err, f.KeepDatastore(t.Context(), older, func() {})); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"token": 0o640, "tls": fs.ModeDir | 0o710, "db/state.db": 0o600} {
		if st, err := os.Stat(filepath.Join(f.own(keptDir), name)); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	want := maps.Clone(earlier)
	want["node-token"], want["db/big"] = "-> token", string(big)
	got := readFiles(t, f.own(keptDir))
	delete(got, ofName)
	same(t, "copy", got, want)
}
