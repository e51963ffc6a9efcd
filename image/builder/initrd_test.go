package builder

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/image/install"
)

// A start without a disk says which flavour it is of: that is what mostly is wrong.
func TestFailedStartNamesItsFlavour(t *testing.T) {
	bin := t.TempDir()
	files{"systemctl": "#!/bin/sh\n", "journalctl": "#!/bin/sh\n", "sleep": "#!/bin/sh\n"}.write(t, bin)
	for _, tool := range []string{"systemctl", "journalctl", "sleep"} {
		if err := os.Chmod(filepath.Join(bin, tool), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		root files
		want string
	}{
		"cloud":          {files{"etc/initrd-release": "", "proc/sys/kernel/osrelease": "6.12.57-cloud-amd64\n"}, "flavour cloud, which has drivers for virtual machines only"},
		"generic":        {files{"etc/initrd-release": "", "proc/sys/kernel/osrelease": "6.12.57-amd64\n"}, "flavour generic"},
		"a disk":         {files{"etc/initrd-release": "", "proc/sys/kernel/osrelease": "6.12.57-amd64\n", "dev/kairos/root": ""}, ""},
		"not the initrd": {files{"proc/sys/kernel/osrelease": "6.12.57-amd64\n"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			tt.root.write(t, root)
			cmd := exec.Command("/bin/sh", "root/usr/lib/kairos/initrd/usr/lib/kairos/failed.sh", "1")
			cmd.Env = []string{"ROOT=" + root, "PATH=" + bin + ":/usr/bin:/bin"}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), tt.want) || strings.Contains(string(out), "flavour") != (tt.want != "") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// Below what the installer warns of, a machine says so at each boot.
func TestRoomForKubernetes(t *testing.T) {
	for _, tt := range []struct {
		bytes int64
		want  string
	}{
		{884 << 20, "the disk leaves 884 MiB for data, which is little for Kubernetes"},
		{install.ForKubernetes - 1<<20, "4095 MiB"},
		{install.ForKubernetes, ""},
		{2 << 40, ""},
	} {
		out, err := exec.Command("/bin/sh", "root/usr/lib/kairos/initrd/usr/lib/kairos/room.sh", fmt.Sprint(tt.bytes/512)).CombinedOutput()
		if err != nil || !strings.Contains(string(out), tt.want) || (len(out) == 0) != (tt.want == "") {
			t.Errorf("%d bytes: %q, %v", tt.bytes, out, err)
		}
	}
}
