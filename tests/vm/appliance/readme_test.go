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

// README's blocks of commands for a machine of its own, run as they stand
// there: from the source to a disk, and through a machine's life. The names in
// capitals and the disk are what a person would fill in.
func TestREADME(t *testing.T) {
	s := newStory(t, 3)
	r := readme{s: s, text: s.readme()}
	root, err := run.RepoRoot()
	s.must(err)
	disk := filepath.Join(s.rack.Dir(), "sdX")

	for _, line := range r.block("Flash") {
		s.host(root, nil, strings.ReplaceAll(line, "/dev/sdX", disk))
	}
	r.configure(disk)

	began := time.Now()
	one := s.machine(vm.Config{Name: "one"}, disk).on()
	two := s.machine(vm.Config{Name: "two"}, disk).on()
	one.up(began)
	two.up(began)
	one.meets(1)
	s.step("Boot", func() {
		for _, line := range r.block("Boot") {
			if got := one.run(line); got == "" {
				s.Errorf("%s: says nothing", line)
			}
		}
	})
	s.step("Upgrade", func() {
		ref := s.serveRegistry().publish(t, s.release(named("v2")), "v2")
		lines := r.block("Upgrade")
		if got := one.run(strings.ReplaceAll(lines[0], "REF", ref)); !strings.Contains(got, "v2") {
			s.Errorf("the check says %q", got)
		}
		one.lastWithin(aStaging, strings.ReplaceAll(lines[1], "REF", ref))
		one.comesBackAs("v2")
		one.isKept()
		one.meets(1)
	})
	s.step("Roll back", func() {
		one.last(r.block("Roll back")[0])
		one.up(time.Now())
		one.fails("cat /"+nameFile, "No such file")
		one.isKept()
	})
	s.step("Recover", func() {
		lines := r.block("Recover")
		before := one.status().Status
		one.run("touch /var/lib/data /etc/data")
		one.last(lines[0])
		one.up(time.Now())
		one.meets(1)
		one.fails("ls /var/lib/data", "No such file")
		one.fails("ls /etc/data", "No such file")
		if after := one.status().Status; after.ID != before.ID || after.Addresses[0] != before.Addresses[0] {
			s.Errorf("it was %s at %s and is %s at %s", before.ID, before.Addresses[0], after.ID, after.Addresses[0])
		}
		one.last(lines[1])
		one.up(time.Now())
		one.meets(1)
		if after := one.status().Status; after.ID == before.ID {
			s.Errorf("it still is %s", after.ID)
		}
	})
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
// person adds who may log in; these machines need no Kubernetes.
func (r readme) configure(disk string) {
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
}

// host is what a person types on this host.
func (s *story) host(dir string, env []string, line string) {
	s.Helper()
	_, err := run.Do(s.ctx, run.Cmd{Args: []string{"sh", "-euc", line}, Dir: dir, Env: env, Log: s.Output()})
	s.must(err)
}
