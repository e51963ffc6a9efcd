package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/intake"
	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/image/install"
	"github.com/kairos-io/kairos/image/slots"
)

// installLimit is how much of a configuration is read, in bytes: one more than is taken.
const installLimit = 1<<20 + 1

// installTools are what installing does to a machine; tests bring their own.
type installTools struct {
	find    func() (slots.Machine, error)
	list    func(context.Context) (install.Listing, error)
	minSize func() (int64, error)
	real    func(path string) (string, error)                     // without symbolic links
	text    func(device, name string) ([]byte, error)             // of a volume that nobody has mounted
	esp     func(context.Context, slots.Machine) (string, error)  // the device of the medium's ESP
	fetch   func(ctx context.Context, u *url.URL) ([]byte, error) // a configuration
	run     func(ctx context.Context, o install.Order) error      // install
	now     func() time.Time
}

var machineTools = installTools{
	find:    slots.ThisSystem.Find,
	list:    install.List,
	minSize: func() (int64, error) { return install.MinSize(os.DirFS(install.Definitions)) },
	real:    filepath.EvalSymlinks,
	text:    install.Text,
	esp:     install.ESP,
	fetch:   intake.NewFetcher(nil).Read,
	run:     func(ctx context.Context, o install.Order) error { return install.Run(ctx, install.Linux{}, o) },
	now:     time.Now,
}

// installer is one installation: what is known, then what is chosen.
type installer struct {
	env   *cli.Env
	tools installTools
	ask   *asker
	yes   bool

	machine slots.Machine
	listing install.Listing
	disks   []install.Disk
}

func newInstall(env *cli.Env) *cobra.Command { return installCommand(env, machineTools) }

func installCommand(env *cli.Env, tools installTools) *cobra.Command {
	var from string
	var yes bool
	cmd := &cobra.Command{
		Use: "install [DEVICE] [--config FILE|URL|-]",
		Long: `Install the running system - from its installation medium, or any machine - on a disk
of this machine, which is erased. Everything is checked before anything is written, and
the disk's name has to be typed. Without a device it asks for everything.

The configuration is checked and lies in /oem/90-install.yaml of the new machine. Without
one, the machine says on its console how to give it one.`,
		Example: "  sudo kairos install --config config.yaml /dev/sda\n" +
			"  sudo kairos install --config https://example.org/config.yaml --yes /dev/nvme0n1",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return cli.WithHint(fmt.Errorf("%d disks: one at a time", len(args)), "see `%s --help`", cmd.CommandPath())
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&from, "config", "", "cloud-config for the new machine: a file, a URL, or - for standard input")
	cmd.Flags().BoolVar(&yes, "yes", false, "erase the disk without asking")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		i := &installer{env: env, tools: tools, ask: newAsker(env), yes: yes}
		if len(args) == 0 {
			return i.wizard(cmd.Context(), from)
		}
		return i.direct(cmd.Context(), args[0], from)
	}
	return cmd
}

// direct installs on a disk that was named.
func (i *installer) direct(ctx context.Context, device, from string) error {
	text, err := i.config(ctx, from)
	if err != nil {
		return err
	}
	if err := i.look(ctx); err != nil {
		return err
	}
	disk, err := i.disk(device)
	if err != nil {
		return err
	}
	if err := i.confirm(ctx, disk); err != nil {
		return err
	}
	return i.install(ctx, disk, text)
}

// look finds out what this machine is and has.
func (i *installer) look(ctx context.Context) error {
	var err error
	if i.machine, err = i.tools.find(); err != nil {
		return cli.WithHint(err, "start this machine from a disk or installation medium of kairos mesh")
	}
	size, err := i.tools.minSize()
	if err != nil {
		return err
	}
	if i.listing, err = i.tools.list(ctx); err != nil {
		return fmt.Errorf("list the disks: %w", err)
	}
	i.disks, err = i.listing.Disks(install.Limits{Running: i.machine.Disk.Path, Size: size})
	return err
}

// disk finds the disk that a person named, by any of its names.
func (i *installer) disk(name string) (install.Disk, error) {
	d, err := install.Find(i.disks, name, i.tools.real)
	if err != nil {
		return d, cli.WithHint(cli.UsageError{Err: err}, "the disks are: %s", i.names())
	}
	if d.Refused != "" {
		return d, cli.Usagef("cannot install on %s: %s", d.Path, d.Refused)
	}
	return d, nil
}

func (i *installer) names() string {
	var out []string
	for _, d := range i.disks {
		if d.Refused == "" {
			out = append(out, d.Path)
		}
	}
	if len(out) == 0 {
		return "none that could be used"
	}
	return strings.Join(out, ", ")
}

// config reads and checks the configuration; nil where none was asked for.
func (i *installer) config(ctx context.Context, from string) ([]byte, error) {
	if from == "" {
		return nil, nil
	}
	text, err := i.read(ctx, from)
	if err != nil {
		return nil, cli.UsageError{Err: err}
	}
	loaded, err := config.CheckText(from, text)
	if err != nil {
		return nil, configError(err)
	}
	tellWarnings(i.env, loaded.Warnings)
	return text, nil
}

func (i *installer) read(ctx context.Context, from string) ([]byte, error) {
	u, err := url.Parse(from)
	if err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") {
		return i.tools.fetch(ctx, u)
	}
	if from == "-" {
		return readAll("standard input", i.env.Stdin)
	}
	f, err := os.Open(from)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	text, err := readAll(from, f)
	return text, errors.Join(err, f.Close())
}

func readAll(name string, r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, installLimit))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return text, nil
}

// confirm lets a person type a name of the disk that is to be erased.
func (i *installer) confirm(ctx context.Context, d install.Disk) error {
	content := d.Content
	if content == "" {
		content = "nothing that is known"
	}
	i.env.Say("%s will be erased; on it: %s", d, content)
	if d.Warning != "" {
		i.env.Say("warning: %s", d.Warning)
	}
	if i.yes {
		return nil
	}
	if !interactive(i.env) {
		return cli.WithHint(cli.Usagef("erasing %s needs a confirmation, and standard input is not a terminal", d.Path), "add --yes")
	}
	answer, err := i.ask.line(ctx, fmt.Sprintf("type %s to erase it and install: ", d.Name()))
	if err != nil {
		return err
	}
	if named, err := install.Find(i.disks, answer, i.tools.real); err != nil || named.Path != d.Path {
		return fmt.Errorf("nothing was changed: %q does not name %s", answer, d.Path)
	}
	return nil
}

func (i *installer) install(ctx context.Context, d install.Disk, text []byte) error {
	var bar *progress
	what := ""
	end := func() {
		if bar != nil {
			bar.end()
		}
	}
	err := i.tools.run(ctx, install.Order{
		From: i.machine, Disk: d, Definitions: install.Definitions, Config: text, At: i.tools.now(),
		Say: func(line string) { i.env.Say("%s", line) },
		Progress: func(step string, done, total int64) {
			if step != what {
				end()
				what, bar = step, newProgress(i.env, step)
			}
			bar.at(done, total)
		},
	})
	end()
	if errors.Is(err, install.ErrChanged) {
		return cli.WithHint(fmt.Errorf("install on %s: %w", d.Path, err), "nothing was changed; look at the list of disks again")
	}
	if err != nil {
		return cli.WithHint(fmt.Errorf("install on %s: %w", d.Path, err), "%s may not boot now; `dmesg` may say what is wrong with it, and installing can be started over", d.Path)
	}
	i.env.Say("installed on %s; remove the medium and reboot", d.Path)
	if text == nil {
		i.env.Say("it has no configuration yet: its console says how to give it one")
	}
	return nil
}
