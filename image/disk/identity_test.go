//go:build !race

package disk

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/image/slots"
	"github.com/kairos-io/kairos/image/slots/slotstest"
)

// checkIdentity: the first start gives a disk and its ESP UUIDs that no other disk has,
// keeps those by which root and hash tree are found, and has noted them.
func (m *media) checkIdentity(t *testing.T) {
	const initrd = "usr/lib/kairos/initrd/usr/lib/kairos/identity.sh"
	script, err := os.ReadFile("../builder/root/" + initrd)
	if err != nil {
		t.Fatal(err)
	}
	before := slotstest.Disk()
	var after [2][]byte
	for i := range after {
		if err := errors.Join(os.WriteFile(m.path("twin"), before, 0o600), os.WriteFile(m.path("identity.sh"), script, 0o600)); err != nil {
			t.Fatal(err)
		}
		if err := m.box.work(t.Context(), m.dir, job{script: "sh identity.sh twin OLD 1 noted; sfdisk --disk-id twin >>noted"}); err != nil {
			t.Fatal(err)
		}
		if after[i], err = os.ReadFile(m.path("twin")); err != nil {
			t.Fatal(err)
		}
		noted, err := os.ReadFile(m.path("noted"))
		if ids := strings.Fields(string(noted)); err != nil || len(ids) != 3 || ids[0] != "OLD" || !strings.EqualFold(ids[1], ids[2]) {
			t.Errorf("noted %q, %v", noted, err)
		}
	}
	was, one, two := partitionsOf(t, before), partitionsOf(t, after[0]), partitionsOf(t, after[1])
	for i, p := range was {
		changed := p.UUID != one[i].UUID && p.UUID != two[i].UUID && one[i].UUID != two[i].UUID
		same := p == one[i] && p == two[i]
		if p.Label == slots.ESPLabel && !changed || p.Label != slots.ESPLabel && !same {
			t.Errorf("%s was %s, is %s on one and %s on the other", p.Label, p.UUID, one[i].UUID, two[i].UUID)
		}
	}
}

func partitionsOf(t *testing.T, disk []byte) []slots.Partition {
	t.Helper()
	list, err := slots.Partitions(bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	return list
}
