package k3s

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRotate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k3s.log")
	if err := rotate(path, 4); err != nil {
		t.Errorf("no file: %v", err)
	}
	for _, tc := range []struct{ name, text, now, old string }{
		{"small", "abc", "abc", ""},
		{"large", "abcdef", "", "abcdef"},
		{"large again: one older file is kept", "ghij", "", "ghij"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := rotate(path, 4); err != nil {
				t.Fatal(err)
			}
			if now := read(t, path); now != tc.now {
				t.Errorf("now %q, want %q", now, tc.now)
			}
			if old := read(t, path+".1"); old != tc.old {
				t.Errorf("old %q, want %q", old, tc.old)
			}
		})
	}
	if m := mode(t, path+".1"); m != 0o600 {
		t.Errorf("the old log has mode %o", m)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(raw)
}

// Where the older file cannot be written (the disk is full), the log must not
// go on growing for ever.
func TestRotateWithoutRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k3s.log")
	if err := os.Mkdir(path+".1", 0o700); err != nil { // nothing can be copied there
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, text, now, err string
	}{
		{"somewhat too large: kept for a better day", "abcdef", "abcdef", "open the old k3s log"},
		{"much too large: cut", "abcdefgh", "", "the log was cut without keeping it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := rotate(path, 4); err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got %v, want %q", err, tc.err)
			}
			if now := read(t, path); now != tc.now {
				t.Errorf("now %q, want %q", now, tc.now)
			}
		})
	}
}

// Half a copy would look like a log that ends early, and takes room.
func TestKeepRemovesHalfACopy(t *testing.T) {
	dir := t.TempDir()
	f, err := os.OpenFile(filepath.Join(dir, "k3s.log"), os.O_CREATE|os.O_WRONLY, 0o600) // cannot be read
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(keep(f, filepath.Join(dir, "old")), f.Close()); err == nil {
		t.Error("copied")
	}
	if _, err := os.Stat(filepath.Join(dir, "old")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a copy is left: %v", err)
	}
}

func TestPrepareLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "k3s.log")
	for range 2 {
		if err := prepareLog(path); err != nil {
			t.Fatal(err)
		}
	}
	if m := mode(t, path); m != 0o600 {
		t.Errorf("mode %o", m)
	}
	if err := prepareLog(filepath.Join(path, "below")); err == nil {
		t.Error("a file as directory was taken")
	}
}
