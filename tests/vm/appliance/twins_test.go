package appliance

import (
	"testing"
	"time"

	"github.com/kairos-io/kairos/tests/vm"
)

// Of two disks that were written from one file the one boots that the firmware chose, once
// one of them has started; and while nobody can tell them apart, the machine says so.
func TestTheDiskThatTheFirmwareChoseBoots(t *testing.T) {
	s := newStory(t, 1)
	disk := s.flashable(named("v1"))
	m := s.machine(vm.Config{Name: "one"}, disk, vm.Disk{Image: disk, Size: diskSize}, s.seed("one", s.config(overlayOnly)))
	boots := func(serial, twins string) {
		s.Helper()
		m.on().up(time.Now())
		got := m.run(`disk=$(lsblk -no PKNAME "$(findmnt -no SOURCE /var)"); cat "/sys/block/$disk/serial"`)
		if got != serial {
			s.Errorf("%s boots, and it was to be %s", got, serial)
		}
		if got := m.run("cat /run/kairos/notes/kairos-twins.note 2>/dev/null | wc -l"); got != twins {
			s.Errorf("%s twins are told of, want %s", got, twins)
		}
		s.must(m.PowerButton(s.ctx))
	}
	m.Eject(0)
	s.step("the disk inside starts alone", func() { boots("disk1", "0") })
	m.Insert(0)
	s.step("a stick that was flashed since is in front of it", func() { boots("disk0", "0") })
	s.step("and again", func() { boots("disk0", "0") })
	m.Eject(0)
	s.step("the stick is gone", func() { boots("disk1", "0") })

	fresh := s.machine(vm.Config{Name: "two"}, disk, vm.Disk{Image: disk, Size: diskSize}, s.seed("two", s.config(overlayOnly))).on().up(time.Now())
	s.step("two that never started", func() {
		fresh.run("grep -q 'was written from the same file' /run/kairos/notes/kairos-twins.note")
	})
}
