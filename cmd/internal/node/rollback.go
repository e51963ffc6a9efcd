package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/image/slots"
)

type rollbackFlags struct {
	restart
	root          string
	yes, noReboot bool
}

func newRollback(env *cli.Env) *cobra.Command {
	var f rollbackFlags
	cmd := &cobra.Command{
		Use: "rollback",
		Long: `Go back to the version of the operating system in the other slot, which ran before
the last upgrade, and reboot into it. A version that was staged and has not run
yet is dropped instead, without a reboot.`,
	}
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&f.noReboot, "no-reboot", false, "do not reboot: the other version boots next")
	cmd.Flags().BoolVar(&f.ignoreLock, "ignore-lock", false, "reboot even when the cluster's upgrade lock cannot be had")
	restartFlags(cmd, &f.restart, &f.root)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		m, err := openMachine(env, f.root)
		if err != nil {
			return err
		}
		unlock, err := m.lock()
		if err != nil {
			return err
		}
		defer unlock()
		switch other := m.status.Other; {
		case other.State == slots.Staged && other.Entry.Counted:
			return m.unstage(cmd.Context(), f)
		case other.State == slots.Staged || other.State == slots.Rollback:
			return m.rollback(cmd.Context(), f)
		}
		return m.noWayBack()
	}
	return cmd
}

// unstage drops what was staged.
func (m *osMachine) unstage(ctx context.Context, f rollbackFlags) error {
	name := nameOf(m.status.Other)
	if err := confirm(ctx, m.env, f.yes, "drop "+name+", which is staged and has not run yet?"); err != nil {
		return err
	}
	p, err := slots.PlanUnstage(m.facts)
	if err != nil {
		return err
	}
	if err := m.carryOut(ctx, p, slots.Writer{}); err != nil {
		return err
	}
	fmt.Fprintf(m.env.Result(), "%s was dropped: %s stays\n", name, nameOf(m.status.Booted))
	return nil
}

// rollback makes the other slot boot next, unless it does already, and reboots.
func (m *osMachine) rollback(ctx context.Context, f rollbackFlags) error {
	from, to := nameOf(m.status.Booted), nameOf(m.status.Other)
	if r := m.status.Other.Record; r != nil && configuredK3s(f.root) == "" {
		if err := dataSkew(f.root, agentapi.K3sOf(r.K3s, "")); err != nil {
			return err
		}
	}
	question := fmt.Sprintf("go back from %s to %s and reboot now?", from, to)
	if f.noReboot {
		question = fmt.Sprintf("boot %s next instead of %s?", to, from)
	}
	if err := confirm(ctx, m.env, f.yes, question); err != nil {
		return err
	}
	if m.status.Other.State == slots.Rollback {
		p, err := slots.PlanRollback(m.facts)
		if err != nil {
			return err
		}
		if err := m.carryOut(ctx, p, slots.Writer{}); err != nil {
			return cli.WithHint(err, "run the command again")
		}
	}
	if f.noReboot {
		fmt.Fprintf(m.env.Result(), "%s boots next\n", to)
		return nil
	}
	f.reason = "rollback to " + to
	if err := m.reboot(ctx, f.restart); err != nil {
		return cli.WithHint(err, "%s boots next in any case: %s", to, cmp.Or(cli.HintOf(err), "reboot the machine"))
	}
	return nil
}

// noWayBack says why there is none.
func (m *osMachine) noWayBack() error {
	if m.status.Other.State == slots.Failed {
		return cli.WithHint(fmt.Errorf("there is no way back: %s in the other slot has failed", nameOf(m.status.Other)),
			"see `kairos status --os`; `kairos upgrade --image REF` puts any version there")
	}
	return cli.WithHint(errors.New("there is no way back: the other slot is empty"), "`kairos upgrade --image REF` puts any version there")
}
