package appliance

import (
	"testing"
	"time"

	"github.com/kairos-io/kairos/image/builder"
	"github.com/kairos-io/kairos/tests/vm"
)

// A disk that was flashed boots as a stick at USB, and its machine meets others by a
// network card of another maker. The life by README has an NVMe disk and Intel's card.
func TestAPCStartsFromAStick(t *testing.T) {
	if *flavour == string(builder.Cloud) {
		t.Skip("NOT RUN: cloud has no drivers of a PC's; run it with -flavour generic")
	}
	s := newStory(t, 1)
	stick := s.flashable(named("v1"))
	began := time.Now()
	m := s.machine(vm.Config{Name: "one", Bus: vm.USB, Card: "rtl8139"}, stick, s.seed("one", s.config(overlayOnly))).on().up(began)
	m.overlayReady()
	s.Logf("RESULT a machine that starts from a stick is overlay-ready after %.0f s", time.Since(began).Seconds())
	s.step("its disk and its card are a PC's", func() {
		if got := m.run(`readlink -f "/sys/class/block/$(lsblk -no PKNAME "$(findmnt -no SOURCE /var)")/device" | grep -c /usb`); got != "1" {
			s.Errorf("%s of its disks is at USB", got)
		}
		if got := m.run(`basename "$(readlink -f /sys/class/net/e*/device/driver)"`); got != "8139cp" && got != "8139too" {
			s.Errorf("its card is driven by %q", got)
		}
	})
}
