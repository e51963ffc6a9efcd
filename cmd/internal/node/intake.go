package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/intake"
	"github.com/kairos-io/kairos/cmd/internal/cli"
)

// cloudInitTarget pulls in all of cloud-init.
const cloudInitTarget = "cloud-init.target"

// early is a step of the boot that takes configuration in.
type early struct {
	env     *cli.Env
	unit    string // whose notes it leaves on the console
	machine intake.Machine
	notes   agentapi.Notes
}

func newEarly(env *cli.Env, unit, root string) early {
	return early{env, unit, intake.Machine{Root: root, Credentials: os.Getenv("CREDENTIALS_DIRECTORY")}, agentapi.Notes{Root: root}}
}

// note tells the console, which must not fail what it tells of.
func (e early) note(kind string, lines ...string) {
	if err := e.notes.Set(e.unit, kind, lines); err != nil {
		e.env.Say("%v", err)
	}
}

func newIntake(env *cli.Env) *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use:   "intake",
		Short: "Take in configuration from the ESP, a credential and the kernel (kairos-intake.service)",
		Long: `Take in what a person gave this machine before it booted, before cloud-init runs:

  config.yaml on the ESP          moved to /oem/80-esp.yaml
  the credential kairos.config    of the hypervisor (SMBIOS) or container manager
  kairos.config=base64:TEXT       on the kernel's command line
  kairos.config=https://...       what kairos-fetch.service read of it before

and hand cloud-init the keys of local files that are its business. Every local
user can read the kernel's command line: a URL is better for a token than text.`,
	}
	cmd.Flags().StringVar(&root, "root", "/", "where the machine's file system begins")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return newEarly(env, "kairos-intake", root).intake(cmd.Context())
	}
	return cmd
}

// intake fails when something was refused, so that the unit shows it; the rest
// has been done.
func (e early) intake(ctx context.Context) error {
	report, gatherErr := e.machine.Gather()
	for _, line := range report.Done {
		e.env.Say("%s", line)
	}
	start, handErr := e.machine.HandOver()
	if start {
		handErr = startUnit(ctx, cloudInitTarget)
	}
	refused := report.Refused
	var problems config.Problems
	if errors.As(handErr, &problems) {
		for _, p := range problems {
			refused = append(refused, p.Error())
		}
		handErr = nil
	}
	e.note(agentapi.Problem, refused...)
	if err := errors.Join(gatherErr, handErr); err != nil {
		return err
	}
	if len(refused) > 0 {
		return cli.UsageError{Err: refusedError(refused)}
	}
	return nil
}

// refusedError is everything that was refused, a line each.
type refusedError []string

func (r refusedError) Error() string   { return fmt.Sprintf("%d lines of configuration refused", len(r)) }
func (r refusedError) Lines() []string { return r }

// startUnit enqueues a unit. It does not wait: what it starts may be ordered
// after the caller.
func startUnit(ctx context.Context, unit string) error {
	out, err := exec.CommandContext(ctx, "systemctl", "start", "--no-block", unit).CombinedOutput()
	if err != nil {
		return fmt.Errorf("start %s: %w: %s", unit, err, out)
	}
	return nil
}

func newFetch(env *cli.Env) *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use:   "fetch",
		Short: "Read the URL of the kernel argument kairos.config= (kairos-fetch.service)",
		Long: `Read the configuration from the URL of the kernel argument kairos.config=, until it
gave a good one. The text is kept: when the URL cannot be read at a later boot, that
boot goes on with it after some seconds.`,
	}
	cmd.Flags().StringVar(&root, "root", "/", "where the machine's file system begins")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return newEarly(env, "kairos-fetch", root).fetch(cmd.Context())
	}
	return cmd
}

func (e early) fetch(ctx context.Context) error {
	arg, err := e.machine.Argument()
	if err != nil {
		return cli.UsageError{Err: err}
	}
	if arg.URL == nil { // a text, which kairos-intake has taken
		return nil
	}
	changed, err := e.machine.Fetch(ctx, intake.NewFetcher(func(line string) {
		e.env.Say("%s", line)
		e.note(agentapi.Waiting, line)
	}), arg.URL)
	e.note(agentapi.Waiting)
	if err != nil || !changed {
		return err
	}
	if e.machine.Runs() {
		e.env.Say("took what the kernel argument's URL gave; keys of cloud-init's in it are applied at the next boot")
		return nil
	}
	e.env.Say("took what the kernel argument's URL gave")
	start, err := e.machine.HandOver()
	if err != nil {
		return configError(err)
	}
	if start {
		return startUnit(ctx, cloudInitTarget)
	}
	return nil
}

func newHostname(env *cli.Env) *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use:   "hostname",
		Short: "Name this machine where cloud-init does not (kairos-hostname.service)",
		Long: `Name this machine where cloud-init does not: when its configuration gives a template
such as "node-{{ trunc 4 .MachineID }}", or no name at all. Without one it is called
kairos- and the first four characters of its ID, so that machines differ.`,
	}
	cmd.Flags().StringVar(&root, "root", "/", "where the machine's file system begins")
	cmd.RunE = func(*cobra.Command, []string) error {
		e := newEarly(env, "kairos-hostname", root)
		name, err := e.machine.NameHost(func(name string) error { return unix.Sethostname([]byte(name)) })
		if name != "" {
			env.Say("this machine is called %s", name)
		}
		var problems config.Problems
		if !errors.As(err, &problems) {
			e.note(agentapi.Problem)
			return err
		}
		var lines []string
		for _, p := range problems {
			lines = append(lines, p.Error())
		}
		e.note(agentapi.Problem, lines...)
		return configError(err)
	}
	return cmd
}
