package appliance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/vm"
)

// README's blocks of commands up to a machine that runs, as they stand there: from
// the source to a disk, its configuration and its first boot. The names in capitals
// and the disk are what a person would fill in. A second machine is told the same
// secret in another way, by a cidata volume: they find each other.
func TestMachinesAreFlashedByREADME(t *testing.T) {
	s := newStory(t, 3)
	r := readme{s: s, text: s.readme()}
	root, err := run.RepoRoot()
	s.must(err)
	disk, plain := filepath.Join(s.rack.Dir(), "sdX"), filepath.Join(s.rack.Dir(), "sdY")
	for _, line := range r.block("Flash") {
		s.host(root, nil, strings.ReplaceAll(line, "/dev/sdX", disk))
	}
	s.host(root, nil, "cp --sparse=always "+disk+" "+plain)
	config := r.configure(disk)

	began := time.Now()
	one := s.machine(vm.Config{Name: "one"}, disk).on()
	two := s.machine(vm.Config{Name: "two"}, plain, s.seed("two", config)).on()
	one.up(began)
	two.up(began)
	one.overlayReady()
	two.overlayReady()
	s.Logf("RESULT two flashed machines are overlay-ready after %.0f s", time.Since(began).Seconds())
	one.meets(1)
	one.pings(two)
	two.pings(one)
	s.step("the disk is as it should be", func() { s.aFlashedDisk(one, two) })
	s.step("Boot", func() {
		for _, line := range r.block("Boot") {
			if got := one.run(line); got == "" {
				s.Errorf("%s: says nothing", line)
			}
		}
	})
}

// The rest of a machine's life by README: it upgrades, goes back and is reset, and
// stays who it is except where a reset is to make another machine of it.
func TestMachinesLiveByREADME(t *testing.T) {
	s := newStory(t, 3)
	r := readme{s: s, text: s.readme()}
	disk, config := s.flashable(edit{}), s.config(overlayOnly, healthTimeout())
	began := time.Now()
	one := s.machine(vm.Config{Name: "one"}, disk, s.seed("one", config)).on()
	two := s.machine(vm.Config{Name: "two"}, disk, s.seed("two", config)).on()
	one.up(began)
	two.up(began)
	one.meets(1)
	s.step("Upgrade", func() {
		ref := s.serveRegistry().publish(t, s.release(named("v2")), "v2")
		lines := r.block("Upgrade")
		if got := one.run(strings.ReplaceAll(lines[0], "REF", ref)); !strings.Contains(got, "v2") {
			s.Errorf("the check says %q", got)
		}
		before := one.self()
		one.run("echo kept >/var/lib/kept; echo kept >/etc/kept")
		one.lastWithin(aStaging, strings.ReplaceAll(lines[1], "REF", ref))
		one.comesBackAs("v2")
		one.isKept()
		one.meets(1)
		one.pings(two)
		if after := one.self(); after != before {
			s.Errorf("it was\n%s\nand is\n%s", before, after)
		}
		if got := one.run("cat /var/lib/kept /etc/kept"); got != "kept\nkept" {
			s.Errorf("its files: %q", got)
		}
	})
	s.step("Roll back", func() {
		one.last(r.block("Roll back")[0])
		one.up(time.Now())
		one.fails("cat /"+nameFile, "No such file")
		one.isKept()
	})
	s.step("Recover", func() {
		lines := r.block("Recover")
		before := one.self()
		one.wipes(lines[0])
		if after := one.self(); after != before {
			s.Errorf("it was\n%s\nand is\n%s", before, after)
		}
		one.wipes(lines[1])
		if after := one.self(); after.shares(before) {
			s.Errorf("it was\n%s\nand is\n%s", before, after)
		}
		one.pings(two)
	})
}

// aFlashedDisk checks what a person finds on machines that were just flashed.
func (s *story) aFlashedDisk(one, two *guest) {
	s.Helper()
	for _, path := range []string{"/x", "/usr/bin/x", "/boot/x"} {
		one.fails("touch "+path, "Read-only file system")
	}
	one.run("touch /etc/x /var/x /home/x /root/x /opt/x /srv/x /usr/local/x /oem/x && rm /etc/x /var/x /home/x /root/x /opt/x /srv/x /usr/local/x /oem/x")
	if mib := one.run("df --output=size -BM /var | tail -n 1 | tr -dc 0-9"); len(mib) < 4 {
		s.Errorf("/var has %s MiB of a disk of %d", mib, diskSize>>20)
	}
	one.fails("cat /efi/config.yaml", "No such file") // it is in /oem now
	if a := one.self(); a.shares(two.self()) {
		s.Errorf("the machines are\n%s\nand\n%s", a, two.self())
	}
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
// person adds who may log in; these machines need no Kubernetes. It returns the
// configuration.
func (r readme) configure(disk string) string {
	r.s.Helper()
	dir := r.s.T.TempDir()
	root, err := run.RepoRoot()
	r.s.must(err)
	r.s.host(root, nil, "go build -o "+filepath.Join(dir, "bin", "kairos")+" ./cmd/kairos")
	env := []string{"PATH=" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH")}
	lines := r.block("Configure")
	r.s.host(dir, env, lines[0])
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
	r.s.host(dir, env, strings.ReplaceAll(lines[1], "/dev/sdX1", disk+"@@1M"))
	return text
}

// host is what a person types on this host.
func (s *story) host(dir string, env []string, line string) {
	s.Helper()
	_, err := run.Do(s.ctx, run.Cmd{Args: []string{"sh", "-euc", line}, Dir: dir, Env: env, Log: s.Output()})
	s.must(err)
}
