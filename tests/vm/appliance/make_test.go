package appliance

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// Stories that need the same release at once make it once.
func TestMakeOnce(t *testing.T) {
	dir := t.TempDir()
	b := &system{prefix: filepath.Join(dir, "vm-")}
	b.tools.CacheDir = dir
	var made atomic.Int32
	build := func(out string) error {
		made.Add(1)
		return os.MkdirAll(filepath.Join(out, "layout"), 0o755)
	}
	var stories sync.WaitGroup
	for range 4 {
		stories.Go(func() {
			path, err := b.make(t.Context(), "release", edit{Version: "v2"}, build)
			if err != nil {
				t.Error(err)
			} else if _, err := os.Stat(filepath.Join(path, "layout")); err != nil {
				t.Error(err)
			}
		})
	}
	stories.Wait()
	if n := made.Load(); n != 1 {
		t.Errorf("made %d times", n)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.new")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
