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

// cuts is how often power fails, and stateWrites how many writes of a node's state
// must have been promised in all.
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

// Power fails at any moment of an upgrade, from its first byte to the end of the
// first boot of the new system, and while a node's state is written. The machine
// always comes up, with the old system or the new one, and can be upgraded further;
// of the state, what was promised is there, whole, or something newer.
func TestPowerCuts(t *testing.T) {
	t.Parallel() // one machine leaves a processor free
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
	m.Eject(1) // read once, and not needed again
	m.put(s.stateWriter(), stateWriter)
	who := m.self()
	began := time.Now()
	m.upgrade(refs["v2"])
	staging := time.Since(began)
	m.comesBackAs("v2")
	m.isKept()
	whole := time.Since(began)

	now, kept, promised := "v2", 0, uint64(0)
	want, writes := cuts()
	for n := 0; n < want || promised < uint64(writes); n++ {
		span := whole
		if n%2 == 0 { // while the slot is written, and the state
			span = staging
		}
		moment := time.Duration(dice.Int64N(int64(span)))
		promised = max(promised, m.cutAfter(moment, upgradeTo(refs[next[now]])))
		m.on().up(time.Now())
		m.overlayReady()
		was := now
		if now = m.run(whichSystem); now != was && now != next[was] {
			t.Fatalf("cut %d: it ran %s, was to run %s, and runs %s", n+1, was, next[was], now)
		}
		if now != was {
			kept++
			m.isKept()
		}
		there, err := strconv.ParseUint(m.run(stateWriter+" "+stateDir+" print"), 10, 64)
		s.must(err)
		if there < promised {
			t.Fatalf("cut %d: the state of write %d is there, and %d was promised", n+1, there, promised)
		}
		t.Logf("cut %d, %.1f s after the start of an upgrade from %s to %s and after %d writes of its state: runs %s", n+1, moment.Seconds(), was, next[was], promised, now)
	}
	m.upgrade(refs[next[now]])
	m.comesBackAs(next[now])
	m.isKept()
	m.isStill(who)
	t.Logf("RESULT %d power cuts within the %.0f s of an upgrade: %d came up with the new system, %d with the old one; %d state writes, and nothing promised was lost",
		want, whole.Seconds(), kept, want-kept, promised)
}

// Where the program that writes state is inside a machine, and what it writes.
const (
	stateWriter = "/var/lib/statewriter/statewriter"
	stateDir    = "/var/lib/statewriter/state"
)

// stateWriter builds that program.
func (s *story) stateWriter() string {
	s.Helper()
	path := filepath.Join(s.rack.Dir(), "statewriter")
	build := exec.CommandContext(s.ctx, "go", "build", "-o", path, "github.com/kairos-io/kairos/tests/vm/statewriter")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		s.Fatalf("build the writer of state: %v\n%s", err, out)
	}
	return path
}

// cutAfter runs a command that may reboot the machine, writes state meanwhile, and
// cuts the power that long after. It returns the last write that was promised.
func (g *guest) cutAfter(moment time.Duration, command string) (promised uint64) {
	g.s.Helper()
	ctx, cancel := g.s.within(aStaging)
	defer cancel()
	written := make(chan error, 1)
	go func() {
		written <- g.Follow(ctx, stateWriter+" "+stateDir, func(line string) {
			n, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
			if err != nil {
				g.s.Errorf("the writer of state says %q", line)
			}
			promised = n
		})
	}()
	cut := time.AfterFunc(moment, g.Kill)
	defer cut.Stop()
	_, err := g.Exec(ctx, command)
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		g.s.Fatalf("%s: %q failed by itself: %v", g.Name, command, err)
	}
	select {
	case <-g.Off():
	case <-g.s.ctx.Done():
		g.s.Fatal(context.Cause(g.s.ctx))
	}
	<-written // it ends with the machine, or with an orderly reboot of it
	return promised
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
