package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestLoadOrCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "overlay")
	path := filepath.Join(dir, "identity.key")
	first, created, err := LoadOrCreate(path, nil)
	if err != nil || !created {
		t.Fatalf("create: created %v, %v", created, err)
	}
	second, created, err := LoadOrCreate(path, nil)
	if err != nil || created || second.ID() != first.ID() {
		t.Fatalf("load: created %v, same %v, %v", created, second.ID() == first.ID(), err)
	}
	for name, want := range map[string]fs.FileMode{path: 0o600, dir: fs.ModeDir | 0o700} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", filepath.Base(name), info.Mode(), want)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("temporary files stay: %v, %v", entries, err)
	}
}

func TestNewKeyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "owner.key")
	key, err := NewKeyFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	if back, err := load(path); err != nil || back.ID() != key.ID() || key.IsZero() {
		t.Errorf("comes back as %s, %v", back.ID().Short(), err)
	}

	// Nothing is replaced, not even what a link only points to.
	link, target := filepath.Join(dir, "link"), filepath.Join(dir, "target")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, there := range []string{path, link, dir} {
		if _, err := NewKeyFile(there, nil); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v, want ErrExist", filepath.Base(there), err)
		}
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the key was replaced: %v", err)
	}

	open := filepath.Join(dir, "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	for place, want := range map[string]error{filepath.Join(open, "k"): ErrKeyMode, filepath.Join(dir, "none", "k"): fs.ErrNotExist} {
		if _, err := NewKeyFile(place, nil); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", place, err, want)
		}
		if _, err := os.Lstat(place); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: something was left: %v", place, err)
		}
	}
}

// A key that is there but of no use is never replaced.
func TestLoadRefuses(t *testing.T) {
	good, err := encodeKey(testKey(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		content string
		mode    fs.FileMode
		want    error
		hint    string
	}{
		{"readable by the group", string(good), 0o640, ErrKeyMode, "chmod 600"},
		{"readable by all", string(good), 0o604, ErrKeyMode, "chmod 600"},
		{"empty", "", 0o600, ErrKeyFile, "backup"},
		{"cut", string(good[:60]), 0o600, ErrKeyFile, "backup"},
		{"text behind", string(good) + "x", 0o600, ErrKeyFile, "backup"},
		{"text before", "x\n" + string(good) + string(good), 0o600, ErrKeyFile, "backup"},
		{"too long", strings.Repeat("\n", maxKeyFile) + string(good), 0o600, ErrKeyFile, "backup"},
		{"another algorithm", otherAlgorithm(t), 0o600, ErrKeyFile, "backup"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "identity.key")
			if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil { // whatever the umask
				t.Fatal(err)
			}
			_, _, err := LoadOrCreate(path, nil)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.hint) {
				t.Errorf("%v, want %v with the hint %q", err, c.want, c.hint)
			}
			after, err := os.ReadFile(path)
			if err != nil || string(after) != c.content {
				t.Errorf("the file changed: %v", err)
			}
		})
	}
}

func TestLoadRefusesOtherFiles(t *testing.T) {
	for name, prepare := range map[string]func(dir, path string) error{
		"directory": func(_, path string) error { return os.Mkdir(path, 0o700) },
		"symlink": func(dir, path string) error {
			return os.Symlink(filepath.Join(dir, "elsewhere"), path)
		},
		"symlink to a good key": func(dir, path string) error {
			_, _, err := LoadOrCreate(filepath.Join(dir, "good.key"), nil)
			return errors.Join(err, os.Symlink(filepath.Join(dir, "good.key"), path))
		},
		"parent is a file": func(dir, _ string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "sub")), os.WriteFile(filepath.Join(dir, "sub"), nil, 0o600))
		},
		"directory that all may write": func(dir, _ string) error { return os.Chmod(filepath.Join(dir, "sub"), 0o777) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "sub", "identity.key")
			if err := prepare(dir, path); err != nil {
				t.Fatal(err)
			}
			if key, created, err := LoadOrCreate(path, nil); err == nil || created || !key.IsZero() {
				t.Errorf("took it: created %v, %v", created, err)
			}
		})
	}
}

// However many start at once, they agree on one key.
func TestCreateRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.key")
	const n = 16
	var wg sync.WaitGroup
	ids, made := make([]ID, n), make([]bool, n)
	for i := range n {
		wg.Go(func() {
			key, created, err := LoadOrCreate(path, nil)
			if err != nil {
				t.Error(err)
			}
			ids[i], made[i] = key.ID(), created
		})
	}
	wg.Wait()
	creators := 0
	for i := range n {
		if ids[i] != ids[0] {
			t.Fatal("two nodes in one place")
		}
		if made[i] {
			creators++
		}
	}
	if creators != 1 {
		t.Errorf("%d creators", creators)
	}
}

func FuzzDecodeKey(f *testing.F) {
	good, err := encodeKey(testKey(f, 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:80])
	f.Add([]byte(otherAlgorithm(f)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		key, err := decodeKey(raw)
		if err == nil && key.ID().IsZero() {
			t.Fatal("a key without an id")
		}
		if err != nil && !errors.Is(err, ErrKeyFile) {
			t.Fatalf("unclassified: %v", err)
		}
	})
}

func otherAlgorithm(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}))
}
