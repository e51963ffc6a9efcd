package builder

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Several disks of a machine may hold the same release; the one that counts is
// the one that was booted from.
func TestBootedPartition(t *testing.T) {
	const (
		hash   = "roothash=00112233445566778899aabbccddeeffffeeddccbbaa99887766554433221100"
		root   = "00112233-4455-6677-8899-aabbccddeeff"
		verity = "ffeeddcc-bbaa-9988-7766-554433221100"
		disk   = "d1d1d1d1-0000-4000-8000-000000000000"
		other  = "d2d2d2d2-0000-4000-8000-000000000000"
	)
	tests := []struct {
		name, cmdline string
		args          []string
		want          string // empty: not the one
		disks         string // that identity.sh has noted
	}{
		{"root", hash, []string{root, disk, root}, "root", ""},
		{"hash tree", hash, []string{verity, disk, root}, "verity", ""},
		{"other slot", hash, []string{other, disk, root}, "", ""},
		{"disk without the boot loader's ESP", hash, []string{root, other}, "", ""},
		{"medium", hash + " kairos.live kairos.medium=" + disk, []string{root, disk}, "root", ""},
		{"medium next to an installed disk", hash + " kairos.live kairos.medium=" + disk, []string{root, other, root}, "", ""},
		{"disk that has another UUID since", hash, []string{root, disk}, "root", other + "\n" + disk + "\n"},
		{"disk whose UUID is about to change", hash, []string{verity, other}, "verity", other + "\n" + disk + "\n"},
		{"disk beside one that has another UUID since", hash, []string{root, "d3"}, "", other + "\n" + disk + "\n"},
		{"no hash", "quiet", []string{root, disk, root}, "", ""},
		{"partition without a UUID", hash, []string{"", disk, root}, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "cmdline")
			if err := os.WriteFile(file, []byte("ro "+tt.cmdline+" gpt\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			noted := filepath.Join(t.TempDir(), "disks")
			if tt.disks != "" {
				if err := os.WriteFile(noted, []byte(tt.disks), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("/bin/sh", append([]string{"root/usr/lib/kairos/initrd/usr/lib/kairos/booted.sh"}, tt.args...)...)
			cmd.Env = append(os.Environ(), "CMDLINE="+file, "DISKS="+noted)
			out, err := cmd.CombinedOutput()
			if got := strings.TrimSpace(string(out)); got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}
