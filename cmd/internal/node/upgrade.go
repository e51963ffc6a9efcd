package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/oci"
	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/image/release"
	"github.com/kairos-io/kairos/image/slots"
	"github.com/kairos-io/kairos/image/upgrade"
)

// exitNothingNew is the code of `kairos upgrade --check` when there is nothing new.
const exitNothingNew = 3

type upgradeFlags struct {
	restart
	root, config, image, hosts string
	key                        string // file
	check, stage, apply, yes   bool
	downgrade                  bool
}

func newUpgrade(env *cli.Env) *cobra.Command {
	var f upgradeFlags
	cmd := &cobra.Command{
		Use: "upgrade",
		Long: `Put a new version of the operating system on this machine: fetch it into the slot
that is not running, verify it, and reboot into it. If it is not healthy in time,
or crashes three times, the machine goes back to the version that runs now by itself.

--check exits with 0 when there is something new and with 3 when there is not.
A release older than what runs is taken with --allow-downgrade only.
--stage does all but the reboot, --apply reboots into what was staged.`,
		Example: `  kairos upgrade
  kairos upgrade --image registry.example/os:stable --check
  kairos upgrade --image oci:/mnt/usb/release --stage`,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.image, "image", "", "where from: a reference, or oci:/path of a layout (default: os.image, else where the last one came from)")
	flags.BoolVar(&f.check, "check", false, "only look whether there is something new")
	flags.BoolVar(&f.stage, "stage", false, "do not reboot: the new version boots next")
	flags.BoolVar(&f.apply, "apply", false, "reboot into the version that was staged")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask before the reboot")
	flags.BoolVar(&f.ignoreLock, "ignore-lock", false, "reboot even when the cluster's upgrade lock cannot be had")
	flags.BoolVar(&f.downgrade, "allow-downgrade", false, "take a release that is older than what runs")
	flags.StringVar(&f.key, "verify-key", "", "file with the public key in PEM that must have signed it (default: os.verify_key)")
	flags.StringVar(&f.config, "config", filepath.Join(defaultConfigDir, config.KairosFile), "configuration")
	flags.StringVar(&f.hosts, "hosts-dir", oci.DefaultHostsDir, "containerd's hosts.toml files, for mirrors")
	restartFlags(cmd, &f.restart, &f.root)
	cmd.MarkFlagsMutuallyExclusive("check", "stage", "apply")
	cmd.MarkFlagsMutuallyExclusive("apply", "image")
	cmd.MarkFlagsMutuallyExclusive("apply", "allow-downgrade")
	cmd.MarkFlagsMutuallyExclusive("apply", "verify-key")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return (&upgrader{env: env, f: f}).run(cmd.Context())
	}
	return cmd
}

// restartFlags are those of every command that reboots.
func restartFlags(cmd *cobra.Command, r *restart, root *string) {
	cmd.Flags().StringVar(root, "root", "/", "where the machine's file system begins")
	cmd.Flags().StringVar(&r.overlay, "overlay-socket", cli.OverlaySocket, "control socket of the overlay")
	cmd.Flags().StringVar(&r.agent, "agent-socket", cli.AgentSocket, "control socket of the agent")
}

// upgrader is one run of the command. Above write it only looks.
type upgrader struct {
	env *cli.Env
	f   upgradeFlags
	m   *osMachine
	cfg config.OS // zero where the configuration cannot be used
	k3s string    // k3s.image; likewise
}

func (u *upgrader) run(ctx context.Context) error {
	if !u.f.check && !u.f.stage && !u.f.yes && !interactive(u.env) {
		return cli.WithHint(cli.Usagef("the reboot needs a confirmation, and standard input is not a terminal"), "add --yes, or --stage to reboot later")
	}
	var err error
	if u.m, err = openMachine(u.env, u.f.root); err != nil {
		return err
	}
	if !u.f.check {
		unlock, err := u.m.lock()
		if err != nil {
			return err
		}
		defer unlock()
	}
	if u.f.apply {
		return u.apply(ctx)
	}
	offer, err := u.find(ctx)
	if err != nil {
		return err
	}
	return u.take(ctx, offer)
}

// apply reboots into what is staged.
func (u *upgrader) apply(ctx context.Context) error {
	if other := u.m.status.Other; other.State != slots.Staged {
		return cli.WithHint(fmt.Errorf("nothing is staged: the other slot is %s", other.State), "stage something with `kairos upgrade --stage`")
	}
	return u.boot(ctx)
}

// find looks for the release.
func (u *upgrader) find(ctx context.Context) (*upgrade.Offer, error) {
	key, err := u.trust()
	if err != nil {
		return nil, err
	}
	image := u.image()
	if image == "" {
		return nil, cli.WithHint(cli.Usagef("it is not known where upgrades come from"), "give --image, or set os.image in the configuration")
	}
	ref, err := oci.ParseRef(image)
	if err != nil {
		return nil, cli.UsageError{Err: err}
	}
	mirrors, err := oci.Mirrors(u.f.hosts, ref.Registry())
	if err != nil {
		return nil, err
	}
	offer, err := upgrade.Find(ctx, upgrade.Options{Ref: ref, OCI: oci.Options{Mirrors: mirrors}, Key: key.Key()})
	return offer, explainOffer(err)
}

// trust reads the configuration, and returns the key that must have signed the
// release; none where nobody asks for signatures. A configuration that cannot be
// used may ask for them: without it only a key that a person names will do.
func (u *upgrader) trust() (key config.PublicKey, err error) {
	if u.f.key != "" {
		raw, err := os.ReadFile(u.f.key)
		if err == nil {
			key, err = config.ParsePublicKey(string(raw))
		}
		if err != nil {
			return key, cli.Usagef("read the public key %s: %w", u.f.key, err)
		}
	}
	c, err := ownConfig(u.f.root, u.f.config)
	switch {
	case err == nil:
		u.cfg, u.k3s = c.OS, c.K3s.Image
	case key.IsZero():
		u.env.Say("not upgrading: the configuration cannot be used, and may ask for signed releases")
		return key, cli.WithHint(configError(err), "mend it: `kairos-agent config --check FILE` says what is wrong; or name the key with --verify-key FILE")
	default:
		u.env.Say("the configuration cannot be used: going by --verify-key alone")
	}
	if key.IsZero() {
		key = u.cfg.VerifyKey
	}
	return key, nil
}

// image is where to look: what was asked for, else configured, else used last.
func (u *upgrader) image() string {
	if u.f.image != "" {
		return u.f.image
	}
	if u.cfg.Image != "" {
		return u.cfg.Image
	}
	image, last := "", uint64(0)
	for _, r := range []*slots.Record{u.m.facts.Records.A, u.m.facts.Records.B} {
		if r != nil && r.Image != "" && r.Generation >= last {
			image, last = r.Image, r.Generation
		}
	}
	return image
}

func explainOffer(err error) error {
	switch {
	case errors.Is(err, upgrade.ErrSignature):
		return cli.WithHint(err, "sign it with `image sign` or cosign, with the key that os.verify_key or --verify-key is the public one of")
	case errors.Is(err, release.ErrInvalid):
		return cli.WithHint(err, "a release is made with `image release`; nothing was changed on this machine")
	case errors.Is(err, oci.ErrNotFound):
		return cli.WithHint(err, "check the name and its tag; a mirror goes into %s, a layout on disk is written oci:/path", oci.DefaultHostsDir)
	}
	return err
}

// take does with the offer what was asked for.
func (u *upgrader) take(ctx context.Context, offer *upgrade.Offer) error {
	st := u.m.status
	if st.Booted.Record == nil { // lost, but this program came with the system that runs
		st.Booted.Record = &slots.Record{Version: cli.RunningVersion()}
	}
	news, named := offer.NewsOf(st), fmt.Sprintf("%s (%s)", offer.Config.Version, offer.Digest)
	if k := agentapi.K3sOf(offer.Config.K3s, "").Kubernetes; k != "" {
		named += " with Kubernetes " + k
	}
	if u.f.check {
		u.report(news, named)
		if news != upgrade.New {
			return nil
		}
		if err := u.skew(ctx, offer.Config.K3s); err != nil {
			u.env.Say("it cannot be put on this machine yet: %v", err)
		}
		return nil
	}
	if news != upgrade.Current && news != upgrade.Waiting && !u.f.downgrade && offer.OlderThanRuns(st) {
		return u.tooOld(offer, news)
	}
	switch news {
	case upgrade.Current:
		fmt.Fprintf(u.env.Result(), "%s is running already\n", named)
		return nil
	case upgrade.Waiting:
		u.env.Say("%s is staged already", named)
	case upgrade.Again:
		if u.f.image == "" { // a timer that upgrades would reboot into it for ever
			return cli.WithHint(fmt.Errorf("%s was tried on this machine and failed", named),
				"see why with `kairos status --os`; --image %s tries it again", offer.Image)
		}
		fallthrough
	default:
		if err := u.skew(ctx, offer.Config.K3s); err != nil {
			return err
		}
		if err := u.write(ctx, offer); err != nil {
			return err
		}
	}
	if u.f.stage {
		fmt.Fprintf(u.env.Result(), "%s is staged and boots next; `kairos upgrade --apply` reboots\n", named)
		return nil
	}
	return u.boot(ctx)
}

// tooOld refuses what would take back what was mended since.
func (u *upgrader) tooOld(offer *upgrade.Offer, news upgrade.News) error {
	hint := "see where it comes from, because somebody may be serving an old release; --allow-downgrade takes it all the same"
	if news == upgrade.Earlier {
		hint = "`kairos rollback` goes back to it"
	}
	return cli.WithHint(fmt.Errorf("%s from %s is older than %s, which this machine runs", offer.Config.Version, offer.From, nameOf(u.m.status.Booted)), "%s", hint)
}

// report is the answer to --check.
func (u *upgrader) report(news upgrade.News, named string) {
	runs := nameOf(u.m.status.Booted)
	text := map[upgrade.News]string{
		upgrade.New:     "new: %s; this machine runs %s",
		upgrade.Again:   "tried before, and failed: %s; this machine runs %s",
		upgrade.Earlier: "earlier: %s is in the other slot; this machine runs %s",
		upgrade.Older:   "older: %s; this machine runs %s",
		upgrade.Waiting: "staged: %s boots next; this machine runs %s",
		upgrade.Current: "nothing new: %s is what runs",
	}[news]
	if news == upgrade.Current {
		fmt.Fprintf(u.env.Result(), text+"\n", named)
	} else {
		fmt.Fprintf(u.env.Result(), text+"\n", named, runs)
	}
	if news != upgrade.New {
		u.env.Exit(exitNothingNew)
	}
}

// write stages the offer.
func (u *upgrader) write(ctx context.Context, offer *upgrade.Offer) error {
	rel := offer.Release(time.Now())
	p, err := slots.PlanUpgrade(u.m.facts, rel)
	if errors.Is(err, slots.ErrTrial) {
		return cli.WithHint(err, "wait until it was found good: see `kairos status --os`")
	}
	if err != nil {
		return explainMachine(err)
	}
	if old := u.m.status.Booted.Record; old != nil && old.Flavour != "" && old.Flavour != rel.Config.Flavour {
		u.env.Say("note: this is the %s flavour, and the machine runs %s", rel.Config.Flavour, old.Flavour)
	}
	if offer.Signed {
		u.env.Say("%s from %s, signed with the configured key", rel.Config.Version, offer.From)
	} else {
		u.env.Say("%s from %s", rel.Config.Version, offer.From)
	}
	// Before the new system can be booted: whoever cuts the power then gets it judged all the same.
	if err := u.m.noteExpect(ctx, u.f.sockets, false); err != nil {
		return err
	}
	if err := u.m.carryOut(ctx, p, slots.Writer{Source: offer, Release: rel}); err != nil {
		return cli.WithHint(err, "this machine goes on with %s; run the command again", nameOf(u.m.status.Booted))
	}
	return nil
}

// boot asks, and reboots into the other slot.
func (u *upgrader) boot(ctx context.Context) error {
	name := nameOf(u.m.status.Other)
	err := confirm(ctx, u.env, u.f.yes, "reboot into "+name+" now?")
	if errors.Is(err, errDeclined) {
		u.env.Say("%s boots next, whenever that is; `kairos upgrade --apply` reboots, `kairos rollback` drops it", name)
		return nil
	}
	if err != nil {
		return err
	}
	u.f.reason = "upgrade to " + name
	return u.m.reboot(ctx, u.f.restart)
}
