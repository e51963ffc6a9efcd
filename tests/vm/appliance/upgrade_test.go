package appliance

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/tests/vm"
)

// nameFile tells which system runs: each release of these tests has its own.
const nameFile = "usr/lib/kairos-test/name"

// named is a system that differs from others by its name alone.
func named(name string) edit {
	return edit{Version: name, Files: map[string]string{nameFile: name + "\n"}}
}

// with adds a file to a system.
func (e edit) with(path, text string) edit {
	files := map[string]string{path: text}
	for p, t := range e.Files {
		files[p] = t
	}
	e.Files = files
	return e
}

const units = "usr/lib/systemd/system/"

// impatient shortens the wait for what a system that is known to be bad will
// never bring; what it does bring has to be there by then, or the wrong reason is
// told. A good one keeps the time that an emulated machine may need.
func impatient(name string) edit {
	return named(name).with("etc/kairos/90-test.yaml", fmt.Sprintf("#cloud-config\nkairos:\n  os: {health_timeout: %.0fs}\n", *patience*120))
}

// What can be wrong with a system, each in its own way.

// panics: the first process ends, and the kernel has nothing to run. It says so by the
// kernel, which writes to every console.
func panics() edit {
	return named("panics").with("usr/lib/systemd/systemd", "#!/bin/sh\necho '<0>about to panic' >/dev/kmsg\nexit 1\n")
}

// agentExits: everything else is well.
func agentExits() edit {
	return impatient("agent-exits").with(units+"kairos-agent.service.d/90-test.conf", "[Service]\nExecStart=\nExecStart=/bin/false\n")
}

// noNetwork: the cards are there and nothing configures them.
func noNetwork() edit {
	return impatient("no-network").with("usr/lib/systemd/network/00-test.network", "[Match]\nType=ether\n[Link]\nUnmanaged=yes\n")
}

var brokenInode = regexp.MustCompile(`erofs: \(device|overlayfs: invalid origin`)

var aboutToPanic = regexp.MustCompile("about to panic")

// healthTimeout is how long a system that is not known to be bad may take: several
// times of what a good boot takes here.
func healthTimeout() string {
	return fmt.Sprintf("os: {health_timeout: %.0fs}", *patience*3*60)
}

// A machine keeps a system that works, gives up one that does not, and says why;
// in the end it runs the newest that worked.
func TestUpgradesAreKeptOrGivenUp(t *testing.T) {
	s := newStory(t, 2)
	r := s.serveRegistry()
	disk := s.flashable(named("v1"))
	config := s.config(overlayOnly, healthTimeout())
	began := time.Now()
	one := s.machine(vm.Config{Name: "one"}, disk, s.seed("one", config)).on()
	two := s.machine(vm.Config{Name: "two"}, disk, s.seed("two", config)).on()
	one.up(began)
	two.up(began)
	one.meets(1)
	for _, m := range []*guest{one, two} {
		m.runs("v1")
		m.Eject(1) // read once, and not needed again
	}

	for range rounds() {
		s.step("systems that work only in part are given up", func() {
			bootsOne, bootsTwo := one.boots(), two.boots()
			one.upgrade(r.publish(t, s.release(agentExits()), "agent-exits"))
			two.upgrade(r.publish(t, s.release(noNetwork()), "no-network"))
			one.fallsBackTo("v1", "the agent to answer")
			two.fallsBackTo("v1", "network card")
			one.gaveUpWithin(3, bootsOne)
			two.gaveUpWithin(3, bootsTwo)
		})
		s.step("a system that panics is given up, and a good one is kept after a bad one", func() {
			before := one.Console.Count(aboutToPanic)
			one.upgrade(r.publish(t, s.release(panics()), "panics"))
			two.upgrade(r.publish(t, s.release(named("v2")), "v2"))
			two.comesBackAs("v2")
			two.isKept()
			one.fallsBackTo("v1", "crashed")
			if n := one.Console.Count(aboutToPanic) - before; n < 1 || n > 3 {
				s.Errorf("the bad system booted %d times", n)
			}
			one.meets(1)
			one.pings(two)
		})
		s.step("a person goes back", func() {
			two.last("kairos rollback --yes")
			two.comesBackAs("v1")
			two.isKept()
		})
	}
}

// rounds is how often each kind of upgrade is tried.
func rounds() int {
	if *soak {
		return 20
	}
	return 1
}

// upgrade puts a system on the machine, which reboots into it.
func (g *guest) upgrade(ref string) {
	g.s.Helper()
	began := time.Now()
	g.lastWithin(aStaging, upgradeTo(ref))
	g.left = time.Now()
	g.s.Logf("%s: reboots into %s after %.0f s", g.Name, ref, g.left.Sub(began).Seconds())
}

// upgradeTo is said by a person who knows that it may be an older one.
func upgradeTo(ref string) string { return "kairos upgrade --yes --allow-downgrade --image " + ref }

// whichSystem prints the name of the system that runs; that of a system as it was
// built is empty.
const whichSystem = "cat /" + nameFile + " 2>/dev/null || :"

func (g *guest) runs(name string) {
	g.s.Helper()
	if got := g.run(whichSystem); got != name {
		g.s.Fatalf("%s runs %q, want %q", g.Name, got, name)
	}
}

// comesBackAs waits for the next boot, which has to be of that system.
func (g *guest) comesBackAs(name string) {
	g.s.Helper()
	began := time.Now()
	ctx, cancel := g.s.within(aBoot)
	defer cancel()
	g.s.must(g.awaitReboot(ctx))
	g.runs(name)
	g.s.Logf("%s: %q runs after %.0f s", g.Name, name, time.Since(began).Seconds())
}

// fallsBackTo waits until the machine runs the named system again, whatever it
// boots before, and checks that it says why: a regular expression.
func (g *guest) fallsBackTo(name, why string) {
	g.s.Helper()
	ctx, cancel := g.s.within(4 * aBoot)
	defer cancel()
	for {
		g.s.must(g.awaitReboot(ctx))
		// The machine may go down again before it has answered.
		if got, err := g.Exec(ctx, whichSystem); err == nil && got == name {
			break
		}
	}
	g.s.Logf("RESULT %s: back at %q %.0f s after it left for a bad system", g.Name, name, time.Since(g.left).Seconds())
	g.overlayReady()
	if text := g.run("kairos status --os"); !regexp.MustCompile(why).MatchString(text) {
		g.s.Errorf("%s: status does not say that it was for the %s:\n%s", g.Name, why, text)
	}
}

// osStatus is what the tests read of `kairos status --os -o json`.
type osStatus struct {
	Booted, Other struct {
		State, Version string
		Trial          bool
	}
}

func (g *guest) osStatus() osStatus {
	g.s.Helper()
	var v osStatus
	g.s.must(json.Unmarshal([]byte(g.run("kairos status --os -o json")), &v))
	return v
}

// isKept waits until the running system's boots are not counted any more, and
// checks that there is a way back.
func (g *guest) isKept() {
	g.s.Helper()
	g.until("the system is kept", `kairos status --os -o json | tr -d ' \n' | grep -q '"booted":{[^}]*"trial":false'`)
	if st := g.osStatus(); st.Booted.State != "booted" || st.Other.State != "rollback" {
		g.s.Errorf("%s: the slots are %+v", g.Name, st)
	}
	// What the overlay over /etc remembers of another system must not be believed.
	if g.Console.Count(brokenInode) > 0 {
		g.s.Errorf("%s: the console tells of broken inodes", g.Name)
	}
	if entries := g.run("ls /efi/EFI/Linux"); strings.Contains(entries, "+") {
		g.s.Errorf("%s: an entry is counted: %s", g.Name, entries)
	}
}

// gaveUpWithin checks how often a bad system booted, by what the machine's boots
// were before it. The boot after it was the good system's.
func (g *guest) gaveUpWithin(most, before int) {
	g.s.Helper()
	if n := g.boots() - before - 1; n < 1 || n > most {
		g.s.Errorf("%s: the bad system booted %d times, at most %d are allowed", g.Name, n, most)
	}
}

// boots is how often the machine has booted with a journal.
func (g *guest) boots() int {
	g.s.Helper()
	n, err := strconv.Atoi(g.run("journalctl --list-boots --no-pager -q | grep -c ."))
	g.s.must(err)
	return n
}
