package api

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A unit that writes secrets elsewhere has a umask that keeps others from its notes.
func TestEverybodyMayReadNotes(t *testing.T) {
	root := t.TempDir()
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	if err := (Notes{root}).Set("kairos-x", Note, []string{"one"}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{notesDir: 0o755, notesDir + "/kairos-x.note": 0o644} {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
}
