package cli

import (
	"errors"

	"github.com/spf13/cobra"
)

func newRun(*Env) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the cluster agent of this node (kairos-agent.service)",
		RunE:  func(*cobra.Command, []string) error { return errors.New("the agent is not part of this build") },
	}
}
