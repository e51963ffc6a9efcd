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
		before := one.self()
		one.reboot()
		one.overlayReady()
		if after := one.self(); after != before {
			s.Errorf("it was\n%s\nand is\n%s", before, after)
		}
		if got := one.run("cat /var/lib/kept /etc/kept"); got != "kept\nkept" {
			s.Errorf("its files: %q", got)
		}
		one.meets(1)
		one.pings(two)
	})
	s.step("no two machines have the same identity", func() {
		if a := one.self(); a.shares(two.self()) {
			s.Errorf("the machines are\n%s\nand\n%s", a, two.self())
		}
	})
	s.step("a reset that keeps the identity wipes the rest", func() {
		before := two.self()
		two.wipes("kairos reset --keep-identity --yes")
		if after := two.self(); after != before {
			s.Errorf("it was\n%s\nand is\n%s", before, after)
		}
		one.pings(two)
	})
	s.step("a reset makes another machine of it, with the same configuration", func() {
		before := two.self()
		two.wipes("kairos reset --yes")
		if after := two.self(); after.shares(before) {
			s.Errorf("it was\n%s\nand is\n%s", before, after)
		}
		two.pings(one)
	})
}

// wipes resets the machine, waits until it is back in the network, and checks
// that its data is gone.
func (g *guest) wipes(reset string) {
	g.s.Helper()
	g.run("echo data >/var/lib/data; echo data >/etc/data; echo data >/home/data")
	began := time.Now()
	g.last(reset)
	g.up(began)
	g.fails("cat /var/lib/data", "No such file")
	g.fails("cat /etc/data", "No such file")
	g.fails("cat /home/data", "No such file")
	g.overlayReady()
	g.meets(1)
}

// self is who a machine is, one thing a line.
type self string

func (g *guest) self() self {
	g.s.Helper()
	st := g.status().Status
	return self(strings.Join([]string{g.run("cat /etc/machine-id"), st.ID.String(), st.Name, st.Addresses[0].String(), g.HostKey()}, "\n"))
}

// shares says whether any of the things is the same.
func (s self) shares(other self) bool {
	a, b := strings.Fields(string(s)), strings.Fields(string(other))
	for i := range a {
		if a[i] == b[i] {
			return true
		}
	}
	return false
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
