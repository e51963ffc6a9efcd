package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/image/assess"
	"github.com/kairos-io/kairos/image/assess/host"
	"github.com/kairos-io/kairos/image/slots"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/systemd"
)

// What is looked at; tests bring a machine of their own, and nobody to ask.
var (
	osSystem  = slots.ThisSystem
	osNetwork = host.Look
)

// osLock keeps two changes of the slots apart, relative to the root.
const osLock = "run/kairos/os.lock"

// osMachine is this machine with its slots.
type osMachine struct {
	slots.Machine
	env    *cli.Env
	root   string // where its file system begins
	facts  slots.Facts
	status slots.Status
}

// openMachine looks at the machine. It changes nothing.
func openMachine(env *cli.Env, root string) (*osMachine, error) {
	m := &osMachine{env: env, root: root}
	system := osSystem
	system.Root = strings.TrimSuffix(root, "/")
	var err error
	if m.Machine, err = system.Find(); err != nil {
		return nil, explainMachine(err)
	}
	if m.Live {
		return nil, cli.WithHint(errors.New("this machine runs from its installation medium, which has no slots"),
			"install it with `kairos install`, or make a newer medium")
	}
	return m, m.look()
}

// look reads the slots again.
func (m *osMachine) look() (err error) {
	if m.facts, err = m.Facts(); err == nil {
		m.status, err = slots.Inspect(m.facts)
	}
	return explainMachine(err)
}

func explainMachine(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return cli.WithHint(err, "run the command with sudo")
	case errors.Is(err, slots.ErrElsewhere):
		return cli.WithHint(err, "only machines that were flashed with a kairos disk or installed with `kairos install` have slots")
	case errors.Is(err, slots.ErrLayout):
		return cli.WithHint(err, "compare `lsblk -o NAME,PARTLABEL,PARTUUID` with the partitions of a fresh machine")
	}
	return err
}

// lock keeps other upgrades, rollbacks and installations of this machine out
// until the process ends or the function is called.
func (m *osMachine) lock() (func(), error) {
	path := filepath.Join(m.root, osLock)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock the slots: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, explainMachine(fmt.Errorf("lock the slots: %w", err))
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = cli.WithHint(errors.New("another upgrade or rollback is at work on this machine"), "wait until it is done: see `kairos status --os`")
		}
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // nothing was written to it
}

// carryOut runs a plan and shows how far it is.
func (m *osMachine) carryOut(ctx context.Context, p slots.Plan, w slots.Writer) error {
	w.Disk, w.ESP = m.Disk, m.ESP
	var shown *progress
	var step slots.Step
	w.Progress = func(s slots.Step, done, total int64) {
		if shown == nil || s != step {
			if shown != nil {
				shown.end()
			}
			shown, step = newProgress(m.env, s.String()), s
		}
		shown.at(done, total)
	}
	err := w.Run(ctx, p)
	if shown != nil {
		shown.end()
	}
	if err != nil {
		return err
	}
	return m.look()
}

// noteExpect keeps what this machine has, for the check after the next boot.
// again: it was noted for the same system when that was staged, and counts where
// a daemon does not answer now.
func (m *osMachine) noteExpect(ctx context.Context, s sockets, again bool) error {
	m.env.Say("noting what this machine has, for the check after the reboot")
	network, err := osNetwork(m.root)
	if err != nil {
		return err
	}
	disk, dir := readDisk(m.root), filepath.Join(m.root, assess.Dir)
	if again {
		if disk.earlier, err = assess.LoadExpect(dir); err != nil {
			m.env.Say("%v", err) // it is written anew
		}
	}
	e, err := noteExpect(ctx, s, network, disk)
	if err != nil {
		return fmt.Errorf("note what this machine has: %w", err)
	}
	return e.Save(dir)
}

// restart is how a machine gets into the other slot.
type restart struct {
	sockets
	reason     string // for others that want to reboot, and for people
	ignoreLock bool
}

// reboot takes the cluster's upgrade lock where this machine is a server, notes
// what the next boot has to bring back, and reboots.
func (m *osMachine) reboot(ctx context.Context, r restart) error {
	c := api.NewClient(r.agent)
	defer c.CloseIdle()
	if err := m.takeLock(ctx, c, r); err != nil {
		return err
	}
	if err := m.noteExpect(ctx, r.sockets, true); err != nil {
		return errors.Join(err, dropLock(ctx, c))
	}
	m.env.Say("rebooting")
	if err := systemd.Reboot(ctx); err != nil {
		return errors.Join(err, dropLock(ctx, c))
	}
	return nil
}

func (m *osMachine) takeLock(ctx context.Context, c *api.Client, r restart) error {
	ctx, cancel := context.WithTimeout(ctx, cli.AskTimeout)
	defer cancel()
	in := map[string]string{"reason": r.reason}
	err := c.Call(ctx, api.Exchange{Method: http.MethodPost, Path: "/control/v1/lock", In: in})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, api.ErrNotRunning):
		m.env.Say("the agent does not run: going on without the cluster's upgrade lock")
		return nil
	case r.ignoreLock:
		m.env.Say("going on without the cluster's upgrade lock: %v", err)
		return nil
	}
	var answer *api.Error
	if errors.As(err, &answer) && answer.Hint != "" {
		return cli.WithHint(fmt.Errorf("not rebooting: %s", answer.Message), "%s", answer.Hint)
	}
	return cli.WithHint(fmt.Errorf("not rebooting: take the cluster's upgrade lock: %w", err), "--ignore-lock reboots all the same")
}

func dropLock(ctx context.Context, c *api.Client) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cli.AskTimeout)
	defer cancel()
	err := c.Call(ctx, api.Exchange{Method: http.MethodDelete, Path: "/control/v1/lock"})
	if err == nil || cli.Unreachable(err) {
		return nil
	}
	return fmt.Errorf("release the upgrade lock: %w", err)
}

// nameOf is what a person calls the system in a slot.
func nameOf(v slots.View) string {
	if v.Record == nil || v.Record.Version == "" {
		return "the system in slot " + v.Slot.String()
	}
	return v.Record.Version
}
