// Command runner runs every check of the repository, one stage after the other,
// with long builds in the background, and sums up. It is what `make test` calls. The
// virtual machine is emulated by one processor for as long as all other stages together
// take with the rest: it runs beside them.
//
//	runner                 everything
//	runner lint unit       these stages only
//
// All output goes to build/test.log; what failed is shown as well. The exit
// status is 0 only if everything passed: a test that was skipped, here where
// nothing should be missing, counts as failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/k3simage"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/cluster"
)

// A stage is a part of all checks that is run and timed as one.
type stage struct {
	name   string
	beside bool // runs at the same time as all stages after it
	run    func(context.Context, *session) result
}

// result of a stage.
type result struct{ passed, failed int }

func (r *result) add(o result) {
	r.passed += o.passed
	r.failed += o.failed
}

// session is what stages share.
type session struct {
	root   string
	log    io.Writer // everything
	images <-chan error

	screen sync.Mutex // held while something is written for a person
}

// stages in the order in which they are run: what fails fast comes first.
var stages = []stage{
	{"lint", false, lint},
	{"vm", true, machine},
	{"unit", false, unit},
	{"netns", false, netns},
	{"nspawn", false, nspawn},
}

// maxTime ends a run that hangs, with time left to clean up.
const maxTime = 84 * time.Minute

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	total, err := runAll(ctx, flag.Args())
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	if total.failed > 0 || total.passed == 0 {
		os.Exit(1)
	}
}

func runAll(ctx context.Context, only []string) (result, error) {
	var total result
	root, err := run.RepoRoot()
	if err != nil {
		return total, err
	}
	if err := os.Chdir(root); err != nil {
		return total, err
	}
	if err := os.MkdirAll("build", 0o755); err != nil {
		return total, err
	}
	log, err := os.Create(filepath.Join("build", "test.log"))
	if err != nil {
		return total, err
	}
	defer log.Close()
	for _, name := range only {
		if !slices.ContainsFunc(stages, func(s stage) bool { return s.name == name }) {
			return total, fmt.Errorf("no stage %s", name)
		}
	}
	s := &session{root: root, log: log}
	wanted := func(name string) bool { return len(only) == 0 || slices.Contains(only, name) }
	if wanted("nspawn") {
		s.images = buildImages(ctx, root)
	}
	began := time.Now()
	results := make(chan result, len(stages))
	started := 0
	for _, st := range stages {
		switch {
		case !wanted(st.name):
			continue
		case st.beside:
			go func() { results <- s.stage(ctx, st) }()
		default:
			results <- s.stage(ctx, st)
		}
		started++
	}
	for range started {
		total.add(<-results)
	}
	fmt.Printf("\n%s in %s (all output: build/test.log)\n", total, time.Since(began).Round(time.Second))
	return total, lab.RemoveOrphans(context.WithoutCancel(ctx), os.Stdout)
}

// stage runs one stage.
func (s *session) stage(ctx context.Context, st stage) result {
	s.say("=== %s\n", st.name)
	began := time.Now()
	r := st.run(ctx, s)
	s.say("=== %s: %s, %s\n", st.name, r, time.Since(began).Round(time.Second))
	return r
}

// say writes for a person. What one call writes stays together.
func (s *session) say(format string, args ...any) {
	s.screen.Lock()
	defer s.screen.Unlock()
	fmt.Printf(format, args...)
}

func (r result) String() string {
	return fmt.Sprintf("%d passed, %d failed", r.passed, r.failed)
}

// buildImages starts what takes longest at once, beside everything else.
func buildImages(ctx context.Context, root string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := cluster.Build(ctx, root, io.Discard)
		if err == nil {
			_, err = k3simage.Addons(ctx, root, io.Discard)
		}
		done <- err
	}()
	return done
}
