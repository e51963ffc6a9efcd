package appliance

import (
	"regexp"
	"testing"
	"time"

	"github.com/kairos-io/kairos/image/disk"
	"github.com/kairos-io/kairos/tests/vm"
)

// A person starts an empty machine from the installation medium, answers its
// questions on the serial console, and has a node - even with the medium, on
// which the same system is, still in it.
func TestInstallFromTheMedium(t *testing.T) {
	t.Parallel()
	s := newStory(t, 1)
	medium := s.installer(named("v1"))
	m := s.empty(vm.Config{Name: "one"}, vm.Disk{Image: medium}, s.seed("one", s.config(overlayOnly)))
	began := time.Now()
	m.on()

	m.sees(`which disk\? \[1-`)
	t.Logf("the installer asks after %.0f s", time.Since(began).Seconds())
	m.types("vdz")
	m.sees(`there is no disk vdz`)
	m.sees(`which disk\? \[1-`)
	m.types("vdb")
	m.sees(`cannot install on /dev/vdb: this system runs from it`)
	m.sees(`which disk\? \[1-`)
	m.types("1")
	m.sees(`configuration: .* \[\S+:user-data\] `)
	m.types("") // the one that was found
	m.sees(`type vda to erase it and install: `)
	m.types("yes")
	m.sees(`nothing was changed: "yes" does not name /dev/vda`)
	m.sees(`press Enter to start over: `)
	m.types("")
	m.sees(`which disk\? \[1-`)
	m.types("vda")
	m.sees(`configuration: `)
	m.types("")
	m.sees(`type vda to erase it and install: `)
	began = time.Now()
	m.types("disk0") // its serial number is a name as well
	m.sees(`installed on /dev/vda; remove the medium and reboot`)
	t.Logf("RESULT installed from the medium in %.0f s", time.Since(began).Seconds())
	m.sees(`press Enter to reboot: `)
	m.types("")
	m.up(time.Now())
	m.runs("v1")
	m.overlayReady()
	if got := m.run("stat -c %a /oem/90-install.yaml"); got != "600" {
		t.Errorf("the configuration, which holds a secret, has mode %s", got)
	}
	m.fails("touch /x", "Read-only file system")
}

// installer is an installation medium.
func (s *story) installer(e edit) string {
	s.Helper()
	b := s.system(e.Seeded)
	release := s.release(e)
	path, err := b.make(s.ctx, "iso", e, func(out string) error {
		return disk.ISO(s.ctx, disk.MediumOptions{Release: release, Out: out, Toolbox: b.tools})
	})
	s.must(err)
	return path
}

// sees waits until the console shows something.
func (g *guest) sees(pattern string) {
	g.s.Helper()
	ctx, cancel := g.s.within(aBoot)
	defer cancel()
	_, _, err := g.Console.Wait(ctx, regexp.MustCompile(pattern))
	g.s.must(err)
}

// types types a line on the console.
func (g *guest) types(line string) {
	g.s.Helper()
	g.s.must(g.Console.Send(line + "\r"))
}
