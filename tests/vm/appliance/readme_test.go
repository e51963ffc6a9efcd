package appliance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/image/builder"
	"github.com/kairos-io/kairos/image/slots"
	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/vm"
)

// The life of a machine by README's blocks of commands, as they stand there: from
// the source to a disk, its configuration and first boot, an upgrade, the way back
// and two resets. The names in capitals and the disk are what a person would fill in.
// In between it is given a system that panics. The other member of its network is a
// daemon on this host, which needs no machine to be emulated.
func TestMachineLivesByREADME(t *testing.T) {
	s := newStory(t, 2)
	r := readme{s: s, text: s.readme()}
	root, err := run.RepoRoot()
	s.must(err)
	disk := filepath.Join(s.rack.Dir(), "sdX")
	for _, line := range r.block("Flash") {
		s.host(root, []string{"MAKEFLAGS=FLAVOUR=" + *flavour}, strings.ReplaceAll(line, "/dev/sdX", disk))
	}
	s.neighbour(r.configure(disk))

	began := time.Now()
	one := s.machine(ownHardware(vm.Config{Name: "one", Screen: true}), disk).on().up(began)
	one.overlayReady()
	s.Logf("RESULT a flashed machine is overlay-ready after %.0f s", time.Since(began).Seconds())
	one.meets(1)
	one.pingsOthers()
	s.step("the disk is as it should be", func() { s.aFlashedDisk(one, disk) })
	s.step("who looks at the screen sees what it is, and can log in", func() { s.aScreen(one) })
	s.step("Boot", func() {
		for _, line := range r.block("Boot") {
			if got := one.run(line); got == "" {
				s.Errorf("%s: says nothing", line)
			}
		}
	})

	registry := s.serveRegistry()
	ref := map[string]string{}
	for _, e := range []edit{named("v2"), panics()} {
		ref[e.Version] = registry.publish(t, s.release(e), e.Version)
	}
	was := one.self()
	isWhatItWas := func() {
		one.meets(1)
		one.pingsOthers()
		one.isStill(was)
		if got := one.run("cat /var/lib/kept /etc/kept"); got != "kept\nkept" {
			s.Errorf("its files: %q", got)
		}
	}
	s.step("Upgrade", func() {
		one.run("echo kept >/var/lib/kept; echo kept >/etc/kept")
		lines := r.block("Upgrade")
		if got := one.run(strings.ReplaceAll(lines[0], "REF", ref["v2"])); !strings.Contains(got, "v2") {
			s.Errorf("the check says %q", got)
		}
		one.lastWithin(aStaging, strings.ReplaceAll(lines[1], "REF", ref["v2"]))
		one.comesBackAs("v2")
		one.isKept()
		isWhatItWas()
	})
	s.step("Roll back", func() {
		one.last(r.block("Roll back")[0])
		one.comesBackAs("")
		one.isKept()
		isWhatItWas()
	})
	s.step("an upgrade that panics", func() {
		one.upgrade(ref["panics"])
		one.fallsBackTo("", "crashed")
		if n := one.Console.Count(aboutToPanic); n < 1 || n > 3 {
			s.Errorf("the system that panics booted %d times", n)
		}
		isWhatItWas()
	})
	s.step("Recover", func() {
		lines := r.block("Recover")
		one.wipes(lines[0])
		one.isStill(was)
		one.wipes(lines[1])
		if now := one.self(); now.shares(was) {
			s.Errorf("it was\n%s\nand is\n%s", was, now)
		}
		one.pingsOthers()
	})
}

// aFlashedDisk checks what a person finds on a machine that was just flashed with a file.
func (s *story) aFlashedDisk(one *guest, file string) {
	s.Helper()
	f, err := os.Open(file)
	s.must(err)
	defer f.Close()
	st, err := f.Stat()
	s.must(err)
	parts, err := slots.Partitions(f, st.Size())
	s.must(err)
	if id := one.run("blkid -p -s PART_ENTRY_UUID -o value /dev/disk/by-partlabel/kairos-esp"); id == "" || id == parts[0].UUID.String() {
		s.Errorf("its ESP has the UUID %q, and so has every disk that is written from the file", id)
	}
	for _, path := range []string{"/x", "/usr/bin/x", "/boot/x"} {
		one.fails("touch "+path, "Read-only file system")
	}
	one.run("touch /etc/x /var/x /home/x /root/x /opt/x /srv/x /usr/local/x /oem/x && rm /etc/x /var/x /home/x /root/x /opt/x /srv/x /usr/local/x /oem/x")
	if mib := one.run("df --output=size -BM /var | tail -n 1 | tr -dc 0-9"); len(mib) < 4 {
		s.Errorf("/var has %s MiB of a disk of %d", mib, diskSize>>20)
	}
	one.fails("cat /efi/config.yaml", "No such file") // it is in /oem now
}

// aScreen checks what somebody sees who connects a monitor: the console's text above a
// login, drawn with more than the cursor. What a start says goes to /dev/console, the
// last console of the list: that of hardware is the screen, whether it has a serial port
// or not, and that of virtual machines is the port, on which is a login too.
func (s *story) aScreen(one *guest) {
	s.Helper()
	one.until("a login is on the screen", `grep -qaF "$(hostname) login:" /dev/vcs1`)
	one.until("the console's text is above it", `grep -qaF "$(grep -m 1 . /run/issue.d/50-kairos.issue)" /dev/vcs1`)
	lit, err := one.LitPixels(s.ctx)
	s.must(err)
	if lit < 1000 {
		s.Errorf("%d pixels of the screen are lit: that is no text", lit)
	}
	want := "tty0"
	if *flavour == string(builder.Cloud) {
		want = "ttyS0"
	}
	if got := strings.Fields(one.run("cat /sys/class/tty/console/active")); len(got) != 2 || got[1] != want {
		s.Errorf("the consoles are %q, the last one is to be %s", got, want)
	}
	one.run("systemctl is-active getty@tty1.service && systemctl is-active serial-getty@ttyS0.service")
}

// ownHardware makes a machine what its flavour is for: a PC, or a virtual machine.
func ownHardware(c vm.Config) vm.Config {
	if *flavour == string(builder.Generic) {
		c.Bus, c.Card = vm.NVMe, "e1000e"
	}
	return c
}

// readme is README.md with what fills its places.
type readme struct {
	s    *story
	text string
}

func (s *story) readme() string {
	s.Helper()
	root, err := run.RepoRoot()
	s.must(err)
	raw, err := os.ReadFile(filepath.Join(root, "README.md"))
	s.must(err)
	return string(raw)
}

// block returns the commands of the first fenced block after a bold word.
func (r readme) block(word string) []string {
	r.s.Helper()
	_, text, found := strings.Cut(r.text, "\n**"+word+".**")
	_, text, opened := strings.Cut(text, "\n```\n")
	text, _, closed := strings.Cut(text, "\n```\n")
	if !found || !opened || !closed {
		r.s.Fatalf("README.md has no block of commands for %q", word)
	}
	return strings.Split(text, "\n")
}

// configure makes the configuration and puts it on the flashed disk. In between a
// person adds who may log in; this machine needs no Kubernetes. It returns what
// generate-token printed.
func (r readme) configure(disk string) string {
	r.s.Helper()
	dir := r.s.T.TempDir()
	root, err := run.RepoRoot()
	r.s.must(err)
	lines := r.block("Configure")
	r.s.host(root, nil, lines[0]+" PREFIX="+dir)
	env := []string{"PATH=" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH")}
	r.s.host(dir, env, lines[1])
	file := filepath.Join(dir, "config.yaml")
	raw, err := os.ReadFile(file)
	r.s.must(err)
	users, _, found := strings.Cut(strings.TrimPrefix(r.s.config(), "#cloud-config\n"), "kairos:\n")
	if !found || strings.Count(string(raw), "\nkairos:\n") != 1 {
		r.s.Fatalf("generate-token does not print a configuration with a kairos block")
	}
	text := strings.Replace(string(raw), "\nkairos:\n", "\n"+users+"kairos:\n  "+overlayOnly+"\n", 1)
	r.s.must(os.WriteFile(file, []byte(text), 0o600))
	// The first partition of a file begins here.
	r.s.host(dir, env, strings.ReplaceAll(lines[2], "/dev/sdX1", disk+"@@1M"))
	return string(raw)
}

// host is what a person types on this host.
func (s *story) host(dir string, env []string, line string) {
	s.Helper()
	_, err := run.Do(s.ctx, run.Cmd{Args: []string{"sh", "-euc", line}, Dir: dir, Env: env, Log: s.Output()})
	s.must(err)
}
