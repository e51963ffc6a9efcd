package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/image/assess"
)

// Pace of the check; tests have less patience.
var (
	bootPoll   = 5 * time.Second
	bootSettle = assess.Settle
)

// Paths of the check, relative to the root of the machine's file system.
const (
	// bootCounter is there while systemd-boot counts this boot:
	// https://systemd.io/BOOT_LOADER_INTERFACE.
	bootCounter = "sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	// bootGood keeps kairos-boot-failed.service from rebooting a boot that was
	// found good already, and bootBad makes it take the tries that are left.
	bootGood = "run/kairos/boot-good"
	bootBad  = "run/kairos/boot-bad"
)

type bootCheckFlags struct {
	sockets
	root, config string
	limit        time.Duration
}

func newBootCheck(env *cli.Env) *cobra.Command {
	var f bootCheckFlags
	cmd := &cobra.Command{
		Use:   "boot-check",
		Short: "Judge whether this boot is good (kairos-boot-check.service)",
		Long: `Judge whether this boot is good: wait until the overlay and the agent are well,
or until os.health_timeout is over, and keep the verdict for kairos status --os.

A new system is on trial: systemd-boot counts its boots. Then what the machine
had before the upgrade must be back too, its mesh and its cluster; an outage of
the network alone does not make such a boot bad. If it is bad, the exit code is
1, and kairos-boot-failed.service reboots the machine into the old system. A boot
that ends without a verdict, by a crash or a power cut, is tried again while
tries are left. Any other boot is left as it is.`,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.root, "root", "/", "where the machine's file system begins")
	flags.StringVar(&f.config, "config", filepath.Join(defaultConfigDir, config.KairosFile), "configuration")
	flags.StringVar(&f.overlay, "overlay-socket", cli.OverlaySocket, "control socket of the overlay")
	flags.StringVar(&f.agent, "agent-socket", cli.AgentSocket, "control socket of the agent")
	flags.DurationVar(&f.limit, "limit", 0, "how long a boot may take to be good (default: os.health_timeout)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return newBootJudge(env, f).run(cmd.Context())
	}
	return cmd
}

// bootJudge is one run of the check.
type bootJudge struct {
	env     *cli.Env
	f       bootCheckFlags
	counted bool           // this system is on trial
	expect  *assess.Expect // nil: local health only
	steady  assess.Steady
	started time.Time // monotonic
	record  assess.Record
	told    string
}

func newBootJudge(env *cli.Env, f bootCheckFlags) *bootJudge {
	return &bootJudge{env: env, f: f, steady: assess.Steady{For: bootSettle}, started: time.Now()}
}

// path is a path of the machine.
func (b *bootJudge) path(name string) string { return filepath.Join(b.f.root, name) }

// run waits for the verdict. What goes wrong in keeping it is told and does not
// change it.
func (b *bootJudge) run(ctx context.Context) error {
	b.open()
	for {
		clock := assess.Clock{Elapsed: time.Since(b.started), Limit: b.limit()}
		facts, err := b.observe(ctx, clock.Elapsed >= clock.Limit)
		if ctx.Err() != nil {
			return errors.New("the check was stopped before there was a verdict")
		}
		var finding assess.Finding
		if err != nil {
			finding = b.steady.Blind(err, clock)
		} else {
			finding = b.steady.Hold(assess.Judge(b.expect, facts, clock), facts.Units, clock)
		}
		b.tell(finding)
		if finding.Verdict != assess.Waiting {
			return b.close(ctx, finding)
		}
		t := time.NewTimer(bootPoll)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// open reads what is expected and whose boot this is. What the machine had is
// asked of a system on trial only: later it may have been moved, or taken apart.
func (b *bootJudge) open() {
	var err error
	if b.counted, err = exists(b.path(bootCounter)); err != nil {
		b.env.Say("boot check: %v", err)
	}
	if b.counted {
		if b.expect, err = assess.LoadExpect(b.path(assess.Dir)); err != nil {
			b.env.Say("boot check: going by local health only: %v", err)
		}
	}
	b.record.RootHash = b.kernelArgument("roothash")
	id, err := os.ReadFile(b.path("proc/sys/kernel/random/boot_id"))
	if err != nil {
		b.env.Say("boot check: %v", err)
	}
	b.record.BootID = strings.TrimSpace(string(id))
}

// onTrial reports whether the boot of the machine below the root is counted and was not
// found good yet. One that cannot be looked at may be.
func onTrial(root string) bool {
	counted, err := exists(filepath.Join(root, bootCounter))
	good, err2 := exists(filepath.Join(root, bootGood))
	return err != nil || counted && (err2 != nil || !good)
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// kernelArgument returns the value of one argument of the kernel command line.
func (b *bootJudge) kernelArgument(name string) string {
	raw, err := os.ReadFile(b.path("proc/cmdline"))
	if err != nil {
		b.env.Say("boot check: %v", err)
	}
	for _, word := range strings.Fields(string(raw)) {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			return value
		}
	}
	return ""
}

// limit is how long this boot may take. The configuration may be there only later.
func (b *bootJudge) limit() time.Duration {
	if b.f.limit > 0 {
		return b.f.limit
	}
	cfg, err := config.LoadFile(b.f.config)
	if err != nil {
		return assess.DefaultLimit // kairos-config tells what is wrong
	}
	return cfg.OS.HealthTimeout
}

// tell prints and keeps a finding when it is another one than before. A boot
// that ends without a verdict leaves what it waited for.
func (b *bootJudge) tell(f assess.Finding) {
	line := cli.OneLine(f.Reason)
	if f.Verdict != assess.Waiting {
		line = string(f.Verdict) + ": " + line
	}
	if line == b.told {
		return
	}
	b.told = line
	if f.Verdict != assess.Bad { // run's error tells that
		b.env.Say("boot check: %s", line)
	}
	b.note(f.Verdict, line)
	if b.record.RootHash == "" {
		return // no slot to remember it of
	}
	b.record.Verdict, b.record.Reason, b.record.When = f.Verdict, cli.OneLine(f.Reason), time.Now()
	log, err := assess.LoadLog(b.path(assess.Dir))
	if err != nil {
		b.env.Say("boot check: starting the record anew: %v", err)
	}
	if err := log.With(b.record).Save(b.path(assess.Dir)); err != nil {
		b.env.Say("boot check: %v", err)
	}
}

// note tells who looks at the console, where a login prompt may have been for long.
func (b *bootJudge) note(v assess.Verdict, line string) {
	var lines []string
	switch {
	case v == assess.Good:
	case b.counted:
		lines = []string{"this system is on trial: " + line}
	case v == assess.Bad:
		lines = []string{"this boot is " + line}
	}
	if err := (agentapi.Notes{Root: b.f.root}).Set("kairos-boot-check", agentapi.Note, lines); err != nil {
		b.env.Say("boot check: %v", err)
	}
}

// close acts on the verdict, which is on disk by now. Who goes back keeps the
// upgrade lock until the old system is found good.
func (b *bootJudge) close(ctx context.Context, f assess.Finding) error {
	if f.Verdict == assess.Good || !b.counted {
		b.releaseLock(ctx)
	}
	if f.Verdict == assess.Good {
		if f.Hint != "" {
			b.env.Say("hint: %s", f.Hint)
		}
		if err := b.mark(bootGood); err != nil {
			b.env.Say("boot check: %v", err)
		}
		return nil
	}
	good, err := exists(b.path(bootGood))
	if b.counted && !good {
		b.env.Say("boot check: this system is on trial: the machine reboots into the old one")
		err = errors.Join(err, b.mark(bootBad))
	}
	err = errors.Join(fmt.Errorf("boot check: bad: %s", f.Reason), err)
	if f.Hint == "" {
		return err
	}
	return cli.WithHint(err, "%s", f.Hint)
}

// mark leaves a verdict to the units of this boot.
func (b *bootJudge) mark(verdict string) error {
	path := b.path(verdict)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("mark this boot: %w", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return fmt.Errorf("mark this boot: %w", err)
	}
	return nil
}
