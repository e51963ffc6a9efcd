package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// Power fails during one save after the other, each on whatever disk the cut before
// has left. What a save has promised, or an earlier start has read, is there after
// every cut, or what was being saved.
func TestWhatWasPromisedOutlivesEveryCut(t *testing.T) {
	dir := t.TempDir()
	key := func(disk map[string][]byte) string {
		var b strings.Builder
		for _, name := range slices.Sorted(maps.Keys(disk)) {
			fmt.Fprintf(&b, "%s=%q\n", name, disk[name])
		}
		return b.String()
	}
	disks := map[string]map[string][]byte{"": {}}
	tried := 0
	for round := range 3 {
		next := map[string]map[string][]byte{}
		for _, start := range disks {
			disk := &logFS{files: maps.Clone(start)}
			s := open(t, dir, disk)
			was, _, err := s.Load()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Save(State{Epoch: was.Epoch + 1}); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			for n := range len(disk.ops) + 1 {
				for _, after := range crashes(start, disk.ops[:n]) {
					tried++
					st, found, err := loadFrom(t, dir, after)
					fresh := found && st.Epoch == was.Epoch+1
					old := st.Epoch == was.Epoch && (found || was.Epoch == 0)
					if err != nil || !fresh && (!old || n == len(disk.ops)) {
						t.Fatalf("round %d, cut after %d of %d operations: %+v, %v, %v; it was %d", round+1, n, len(disk.ops), st, found, err, was.Epoch)
					}
					next[key(after)] = after
				}
			}
		}
		disks = next
	}
	t.Logf("RESULT %d disks after three cuts in a row, %d of them different", tried, len(disks))
}
