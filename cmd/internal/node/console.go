package node

import (
	"context"
	"fmt"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/kairos-io/kairos/agent/console"
	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/overlay/api"
)

func newConsole(env *cli.Env) *cobra.Command {
	var root, socket, file string
	var once bool
	cmd := &cobra.Command{
		Use:   "console",
		Short: "Say on the console what this machine is and waits for (kairos-console.service)",
	}
	flags := cmd.Flags()
	flags.StringVar(&root, "root", "/", "where the machine's file system begins")
	flags.StringVar(&socket, "overlay-socket", cli.OverlaySocket, "control socket of the overlay")
	flags.StringVar(&file, "issue", console.IssueFile, "file to keep, for agetty")
	flags.BoolVar(&once, "print", false, "print it once, and write no file")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		overlay := api.NewClient(socket)
		defer overlay.CloseIdle()
		machine := console.Machine{Root: root, Version: cli.RunningVersion(), Overlay: overlay}
		if once {
			env.Result().WriteString(console.Render(machine.Look(ctx)))
			return nil
		}
		watcher := console.Watcher{
			Look:    machine.Look,
			Changes: console.Changes(ctx, overlay),
			Show: console.Show(file, func() error { return reloadAgetty(ctx) },
				func(err error) { env.Say("%v", err) }),
		}
		return watcher.Run(ctx)
	}
	return cmd
}

// reloadAgetty makes every prompt that nobody has typed at show its text anew.
func reloadAgetty(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "agetty", "--reload").CombinedOutput(); err != nil {
		return fmt.Errorf("show the console's text anew: %w: %s", err, out)
	}
	return nil
}
