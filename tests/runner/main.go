// Command runner runs every check of the repository, one stage after the other,
// with long builds in the background, and sums up. It is what `make test` calls.
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
	"syscall"
	"time"

	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/cluster"
)

// A stage is a part of all checks that is run and timed as one.
type stage struct {
	name string
	run  func(context.Context, *session) result
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
}

// stages in the order in which they are run: what fails fast comes first.
var stages = []stage{
	{"lint", lint},
	{"unit", unit},
	{"netns", netns},
	{"nspawn", nspawn},
	{"vm", machines},
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
	for _, st := range stages {
		if !wanted(st.name) {
			continue
		}
		fmt.Printf("=== %s\n", st.name)
		start := time.Now()
		r := st.run(ctx, s)
		fmt.Printf("=== %s: %s, %s\n", st.name, r, time.Since(start).Round(time.Second))
		total.add(r)
	}
	fmt.Printf("\n%s in %s (all output: build/test.log)\n", total, time.Since(began).Round(time.Second))
	return total, lab.RemoveOrphans(context.WithoutCancel(ctx), os.Stdout)
}

func (r result) String() string {
	return fmt.Sprintf("%d passed, %d failed", r.passed, r.failed)
}

// buildImages starts what takes longest at once, beside everything else.
func buildImages(ctx context.Context, root string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := cluster.Build(ctx, root, io.Discard)
		done <- err
	}()
	return done
}
