package appliance

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kairos-io/kairos/tests/internal/run"
)

// flashable is the disk image that a person would write to a disk.
func flashable(s *story) string {
	s.Helper()
	if *given != "" {
		return *given
	}
	s.Fatal("no disk yet")
	return ""
}

// espStart is where the first partition of the image begins, in bytes.
const espStart = 1 << 20

// withESPFile is the image with one more file in the root of its ESP: what a
// person does with the flashed stick before its first boot.
func (s *story) withESPFile(disk, name, text string) string {
	s.Helper()
	copied := filepath.Join(s.rack.Dir(), fmt.Sprintf("esp-%d.raw", len(s.rack.Machines())))
	_, err := run.Out(s.ctx, "cp", "--sparse=always", disk, copied)
	s.must(err)
	s.must(os.Chmod(copied, 0o600))
	s.must(s.rack.CopyToFAT(s.ctx, fmt.Sprintf("%s@@%d", copied, espStart), map[string]string{name: text}))
	return copied
}
