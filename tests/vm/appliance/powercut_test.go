package appliance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/kairos-io/kairos/tests/vm"
)

// cuts is how often power fails in a test, and stateWrites how many writes must
// have been promised in all.
func cuts() (cuts, stateWrites int) {
	if *soak {
		return 50, 1000
	}
	return 3, 50
}

// dice are the random choices of a test, which it can be repeated with.
func (s *story) dice() *rand.Rand {
	seed := *seed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	s.Logf("RESULT repeat this choice of moments with -seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// A node's state survives power cuts at any moment of its writing: what was
// promised is there, whole, or something newer.
func TestPowerCutsWhileStateIsWritten(t *testing.T) {
	t.Parallel()
	s := newStory(t, 1)
	dice := s.dice()
	writer := filepath.Join(s.rack.Dir(), "statewriter")
	build := exec.CommandContext(s.ctx, "go", "build", "-o", writer, "github.com/kairos-io/kairos/tests/vm/statewriter")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the writer: %v\n%s", err, out)
	}
	m := s.machine(vm.Config{Name: "one"}, s.flashable(edit{}), s.seed("one", s.config(overlayOnly))).on().up(time.Now())
	m.overlayReady()
	m.put(writer, "/var/lib/statewriter/statewriter")
	m.Eject(1) // its work is done
	who := m.self()

	want, least := cuts()
	promised := uint64(0)
	for n := 0; n < want || promised < uint64(least); n++ {
		after := 1 + dice.IntN(40)
		last := m.cutWhile("/var/lib/statewriter/statewriter /var/lib/statewriter/state", after)
		m.on().up(time.Now())
		there, err := strconv.ParseUint(m.run("/var/lib/statewriter/statewriter /var/lib/statewriter/state print"), 10, 64)
		s.must(err)
		if there < last || there < promised {
			t.Fatalf("cut %d: the state of write %d is there, and %d was promised", n+1, there, max(last, promised))
		}
		promised = there
	}
	m.overlayReady()
	if now := m.self(); now != who {
		t.Errorf("it was\n%s\nand is\n%s", who, now)
	}
	t.Logf("RESULT %d state writes with %d power cuts: nothing promised was lost", promised, want)
}

// Power fails at any moment of an upgrade, from its first byte to the end of the
// first boot of the new system: the machine always comes up, with the old system
// or the new one, and can be upgraded further.
func TestPowerCutsWhileUpgrading(t *testing.T) {
	t.Parallel()
	s := newStory(t, 1)
	dice := s.dice()
	r := s.serveRegistry()
	refs := map[string]string{}
	for _, name := range []string{"v2", "v3"} {
		refs[name] = r.publish(t, s.release(named(name)), name)
	}
	next := map[string]string{"v1": "v2", "v2": "v3", "v3": "v2"}
	m := s.machine(vm.Config{Name: "one"}, s.flashable(named("v1")), s.seed("one", s.config(overlayOnly, healthTimeout()))).on().up(time.Now())
	m.overlayReady()
	m.Eject(1)
	who := m.self()
	began := time.Now()
	m.upgrade(refs["v2"])
	m.comesBackAs("v2")
	m.isKept()
	whole := time.Since(began)

	now, kept := "v2", 0
	want, _ := cuts()
	for n := range want {
		moment := time.Duration(dice.Int64N(int64(whole)))
		m.upgradeCutAfter(refs[next[now]], moment)
		m.on().up(time.Now())
		m.overlayReady()
		was := now
		if now = m.run("cat /" + nameFile); now != was && now != next[was] {
			t.Fatalf("cut %d: it ran %s, was to run %s, and runs %s", n+1, was, next[was], now)
		}
		if now != was {
			kept++
			m.isKept()
		}
		t.Logf("cut %d, %.1f s after the start of an upgrade from %s to %s: runs %s", n+1, moment.Seconds(), was, next[was], now)
	}
	m.upgrade(refs[next[now]])
	m.comesBackAs(next[now])
	m.isKept()
	if after := m.self(); after != who {
		t.Errorf("it was\n%s\nand is\n%s", who, after)
	}
	t.Logf("RESULT %d power cuts within the %.0f s of an upgrade: %d came up with the new system, %d with the old one, none with none", want, whole.Seconds(), kept, want-kept)
}

// upgradeCutAfter begins an upgrade and cuts the power that long after.
func (g *guest) upgradeCutAfter(ref string, moment time.Duration) {
	g.s.Helper()
	cut := time.AfterFunc(moment, g.Kill)
	defer cut.Stop()
	ctx, cancel := g.s.within(aStaging)
	defer cancel()
	_, err := g.Exec(ctx, upgradeTo(ref))
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		g.s.Fatalf("%s: the upgrade failed by itself: %v", g.Name, err)
	}
	select {
	case <-g.Off():
	case <-g.s.ctx.Done():
		g.s.Fatal(context.Cause(g.s.ctx))
	}
}

// put copies a program of this host into the machine.
func (g *guest) put(from, to string) {
	g.s.Helper()
	f, err := os.Open(from)
	g.s.must(err)
	defer f.Close()
	ctx, cancel := g.s.within(aCommand)
	defer cancel()
	g.s.must(g.Feed(ctx, fmt.Sprintf("mkdir -p %s && cat >%s && chmod 755 %[2]s && sync", filepath.Dir(to), to), f))
}

// cutWhile cuts the power some time after the command has written so many
// numbers, one a line, and returns the last one that was seen.
func (g *guest) cutWhile(command string, lines int) (last uint64) {
	g.s.Helper()
	ctx, cancel := g.s.within(aCommand)
	defer cancel()
	seen := 0
	err := g.Follow(ctx, command, func(line string) {
		n, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
		if err != nil {
			g.s.Errorf("the writer says %q", line)
		}
		last = n
		if seen++; seen == lines {
			g.Kill()
		}
	})
	if err == nil || g.Running() {
		g.s.Fatalf("%s: the writer ended by itself: %v", g.Name, err)
	}
	return last
}
