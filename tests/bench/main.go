// Command bench measures what our network does beside what others do: in one run
// on one machine, each contender between two network namespaces that a veth of MTU
// 1500 joins, in interleaved rounds. The table shows medians and their ratios to
// wireguard-go's; below it stands what became of the goals. It needs root.
//
//	bench                                      everything
//	bench -rounds 1 -seconds 2 -only "wireguard-go,ours (fast)" -figures tcp1,ping
//
// Both sides, the generators of traffic and the kernel share one machine's
// processors: what counts is the ratios. Processor time is that of the contender's
// programs, and of what the kernel does for them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kairos-io/kairos/tests/internal/run"
)

// bench is one run.
type bench struct {
	root            string
	rounds, seconds int
	overload        int // seconds
	only, figures   []string
	out             string
	before          string // a revision
	check           bool
	samples         []sample
	failed          []string
}

func main() {
	// Programs are started by this thread only, since they end with the thread that
	// started them (prctl(2), PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	b, err := parseFlags(os.Args[1:])
	if err != nil {
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = b.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string) (*bench, error) {
	b := &bench{}
	var only, wanted string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&b.rounds, "rounds", 5, "how often everything is measured")
	flags.IntVar(&b.seconds, "seconds", 4, "how long each measurement takes")
	flags.IntVar(&b.overload, "overload", 60, "how long the flood before the last look at memory takes, in seconds")
	flags.StringVar(&only, "only", "", "contenders, separated by commas: "+strings.Join(contenderNames(), ","))
	flags.StringVar(&wanted, "figures", "", "what to measure, separated by commas: "+strings.Join(figureNames(), ","))
	flags.StringVar(&b.before, "before", "", "a git revision: ours as it was then is one of the contenders")
	flags.StringVar(&b.out, "out", "", "file for the figures as JSON (default build/bench.json of the repository)")
	flags.BoolVar(&b.check, "check", false, "fail if a goal is not reached")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	err := func() (err error) {
		if b.only, err = choose(only, contenderNames()); err != nil {
			return err
		}
		if b.figures, err = choose(wanted, figureNames()); err != nil {
			return err
		}
		if only == "" && b.before == "" {
			b.only = slices.DeleteFunc(b.only, func(name string) bool { return name == nameBefore })
		}
		if slices.Contains(b.only, nameBefore) != (b.before != "") {
			return errors.New("-before names the revision of the contender " + nameBefore)
		}
		if b.rounds < 1 || b.seconds < 1 || b.overload < 2 || flags.NArg() > 0 {
			return errors.New("want at least one round, one second and two seconds of overload, and no arguments")
		}
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	return b, err
}

// choose is the names in a list, all of which must be known; all of them if it is empty.
func choose(list string, known []string) ([]string, error) {
	if list == "" {
		return known, nil
	}
	var chosen []string
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("%q is none of: %s", name, strings.Join(known, ", "))
		}
		chosen = append(chosen, name)
	}
	return chosen, nil
}

func contenderNames() []string {
	var names []string
	for _, c := range contenders {
		names = append(names, c.name)
	}
	return names
}

func figureNames() []string {
	var names []string
	for _, f := range figures {
		if !slices.Contains(names, f.name) {
			names = append(names, f.name)
		}
	}
	for _, r := range recoveries {
		names = append(names, r.figure)
	}
	return append(names, figureLoss, figureMembers)
}

func (b *bench) run(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("the bench needs root (network namespaces and interfaces)")
	}
	if _, err := exec.LookPath("iperf3"); err != nil {
		return errors.New("the bench needs iperf3: run `make bench`, or install it")
	}
	var err error
	if b.root, err = run.RepoRoot(); err != nil {
		return err
	}
	if b.out == "" {
		b.out = filepath.Join(b.root, "build", "bench.json")
	}
	if err := b.build(ctx); err != nil {
		return err
	}
	for round := range b.rounds {
		for i := range contenders {
			// Nobody is always the first, or always after the same one.
			c := contenders[(i+round)%len(contenders)]
			if slices.Contains(b.only, c.name) && ctx.Err() == nil {
				b.try(ctx, c, round)
			}
		}
	}
	if slices.Contains(b.figures, figureMembers) {
		b.tryMembers(ctx, func(who, figure string, values map[string]float64, err error) {
			b.note(ctx, sample{Round: 1, Contender: who, Figure: figure}, values, err)
		})
	}
	return errors.Join(b.tell(), context.Cause(ctx))
}

// build builds ours and the others.
func (b *bench) build(ctx context.Context) error {
	to := filepath.Join(b.root, "build", "bench") + "/"
	for _, c := range []run.Cmd{
		{Dir: b.root, Args: []string{"./cmd/kairos", "./cmd/kairos-agent", "./tests/bench/copier"}},
		{Dir: filepath.Join(b.root, "tests", "bench", "peers"), Args: []string{
			"golang.zx2c4.com/wireguard", "github.com/slackhq/nebula/cmd/nebula", "github.com/slackhq/nebula/cmd/nebula-cert"}},
	} {
		c.Args = append([]string{"nice", "go", "build", "-trimpath", "-o", to}, c.Args...)
		c.Env = []string{"CGO_ENABLED=0"}
		if _, err := run.Do(ctx, c); err != nil {
			return err
		}
	}
	if slices.Contains(b.figures, figureMembers) {
		if err := buildMembers(ctx, b.root, filepath.Join(to, "members.test")); err != nil {
			return err
		}
	}
	return b.buildBefore(ctx)
}

// try measures one contender once. What fails is noted, and the rest goes on.
func (b *bench) try(ctx context.Context, c contender, round int) {
	began := time.Now()
	note := func(figure string, values map[string]float64, err error) {
		b.note(ctx, sample{Round: round + 1, Contender: c.name, Figure: figure}, values, err)
	}
	wanted := func(f figure) bool { return slices.Contains(b.figures, f.name) }
	if slices.ContainsFunc(figures, wanted) {
		err := b.with(ctx, c, veth, func(t *trial) error {
			t.first = round == 0
			for _, f := range figures {
				if wanted(f) && ctx.Err() == nil {
					values, err := t.figure(ctx, f.measure)
					note(f.name, values, err)
				}
			}
			return nil
		})
		note("start", nil, err)
	}
	// What has no underlay loses nothing there.
	if slices.Contains(b.figures, figureLoss) && c.name != nameCopier {
		for _, percent := range lossRates {
			speed, err := b.measureLoss(ctx, c, lossy(percent, uint64(round)))
			if err != nil {
				note(lossColumn(percent), nil, err)
			} else {
				note(lossColumn(percent), map[string]float64{lossColumn(percent): speed / 1e6}, nil)
			}
		}
	}
	// Nobody else is said to find another path.
	for _, r := range recoveries {
		if slices.Contains(b.figures, r.figure) && slices.Contains([]string{nameFast, nameBefore}, c.name) {
			ms, err := b.measureRecovery(ctx, c, r)
			if err != nil {
				note(r.figure, nil, err)
			} else {
				note(r.figure, map[string]float64{r.figure: ms}, nil)
			}
		}
	}
	fmt.Fprintf(os.Stderr, "round %d/%d: %s (%s)\n", round+1, b.rounds, c.name, time.Since(began).Round(time.Second))
}

// note keeps the values of a figure, by column, or why there are none.
func (b *bench) note(ctx context.Context, of sample, values map[string]float64, err error) {
	if err != nil && ctx.Err() == nil {
		line := fmt.Sprintf("%s, round %d: %s: %v", of.Contender, of.Round, of.Figure, err)
		fmt.Fprintln(os.Stderr, "FAILED", line)
		b.failed = append(b.failed, line)
	}
	for column, v := range values {
		b.samples = append(b.samples, sample{Round: of.Round, Contender: of.Contender, Figure: column, Value: v})
	}
}

// with runs f while a contender runs in a world of its own.
func (b *bench) with(ctx context.Context, c contender, join underlay, f func(*trial) error) error {
	w, err := newWorld(ctx, join)
	if err != nil {
		return err
	}
	defer w.close()
	n, err := c.start(ctx, b, w)
	if err != nil {
		return err
	}
	// It is up when a packet gets through both ways.
	err = await(ctx, 20*time.Second, func() error {
		return w.sides[0].exec(ctx, "ping", "-n", "-c", "1", "-W", "1", n.addr[1].String())
	})
	if err != nil {
		return n.explain(err)
	}
	return f(&trial{bench: b, w: w, n: n})
}

// tell shows and writes what was measured. The error is about what was not.
func (b *bench) tell() error {
	m := mediansOf(b.samples)
	verdicts := judge(m)
	if len(b.samples) > 0 {
		fmt.Printf("Medians of %d rounds of %d s, and ratios to %s.\n\n%s\n", b.rounds, b.seconds, nameWG, table(m))
	}
	if members := membersTable(m); members != "" {
		fmt.Println(members)
	}
	short := 0
	for _, v := range verdicts {
		fmt.Println(v)
		if !v.Pass {
			short++
		}
	}
	var errs []error
	if len(b.failed) > 0 {
		errs = append(errs, fmt.Errorf("%d measurements failed:\n%s", len(b.failed), strings.Join(b.failed, "\n")))
	}
	if b.check && short > 0 {
		errs = append(errs, fmt.Errorf("%d goals are not reached", short))
	}
	r := report{Rounds: b.rounds, Seconds: b.seconds, Overload: b.overload, Medians: m, Goals: verdicts, Samples: b.samples, Failed: b.failed}
	return errors.Join(append(errs, r.write(b.out))...)
}
