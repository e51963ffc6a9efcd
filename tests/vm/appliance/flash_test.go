package appliance

import (
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/tests/vm"
)

// Two machines are flashed with one image and told the same secret in two
// different ways. They find each other, and stay who they are.
func TestFlashedMachinesFindEachOther(t *testing.T) {
	s := newStory(t, 2)
	disk := s.flashable(edit{})
	config := s.config(overlayOnly)
	began := time.Now()
	one := s.machine(vm.Config{Name: "one"}, disk, s.seed("one", config)).on()
	two := s.machine(vm.Config{Name: "two"}, s.withESPFile(disk, "config.yaml", config)).on()
	one.up(began)
	two.up(began)

	one.overlayReady()
	two.overlayReady()
	s.Logf("RESULT two flashed machines are overlay-ready after %.0f s", time.Since(began).Seconds())
	one.meets(1)
	one.pings(two)
	two.pings(one)

	s.step("the root is read-only and what lies over it is not", func() {
		for _, path := range []string{"/x", "/usr/bin/x", "/boot/x"} {
			one.fails("touch "+path, "Read-only file system")
		}
		one.run("touch /etc/x /var/x /home/x /root/x /opt/x /srv/x /usr/local/x /oem/x && rm /etc/x /var/x /home/x /root/x /opt/x /srv/x /usr/local/x /oem/x")
	})
	s.step("the data partition has the whole disk", func() {
		if mib := one.run("df --output=size -BM /var | tail -n 1 | tr -dc 0-9"); len(mib) < 4 {
			s.Errorf("/var has %s MiB of a disk of %d", mib, diskSize>>20)
		}
	})
	s.step("a reboot changes nothing of what it is and has", func() {
		one.run("echo kept >/var/lib/kept; echo kept >/etc/kept")
		before, key := one.self(), one.HostKey()
		one.reboot()
		one.overlayReady()
		if after := one.self(); after != before {
			s.Errorf("it was\n%s\nand is\n%s", before, after)
		}
		if one.HostKey() != key {
			s.Errorf("its ssh host key was %s and is %s", key, one.HostKey())
		}
		if got := one.run("cat /var/lib/kept /etc/kept"); got != "kept\nkept" {
			s.Errorf("its files: %q", got)
		}
		one.meets(1)
		one.pings(two)
	})
	s.step("no two machines have the same identity", func() {
		a, b := strings.Fields(one.self()), strings.Fields(two.self())
		for i := range a {
			if a[i] == b[i] {
				s.Errorf("both have %s", a[i])
			}
		}
	})
}

// self is who the machine is: machine-id, node identity, overlay address.
func (g *guest) self() string {
	g.s.Helper()
	st := g.status().Status
	return strings.Join([]string{g.run("cat /etc/machine-id"), st.ID.String(), st.Name, st.Addresses[0].String()}, "\n")
}

// step is a part of a story under its own name; later ones do not run after one
// that failed.
func (s *story) step(name string, f func()) {
	s.Helper()
	if s.Failed() {
		return
	}
	outer := s.T
	defer func() { s.T = outer }()
	outer.Run(name, func(t *testing.T) {
		s.T = t
		f()
	})
}
