//go:build !linux

package cli

import (
	"errors"
	"slices"

	"github.com/spf13/cobra"
)

// newBridge says what to use instead, whatever its flags.
func newBridge(*Env) *cobra.Command {
	return &cobra.Command{
		Use:   "bridge",
		Short: bridgeShort,
		Long: `Join the network of your machines from here. So far that needs Linux: run it there,
by this program or its container image, in a virtual machine for example. Without it,
a node lets kubectl through:

  ssh NODE sudo kairos get-kubeconfig > kubeconfig
  ssh -N -D 1080 NODE                                   in a second window
  HTTPS_PROXY=socks5://localhost:1080 kubectl --kubeconfig kubeconfig get nodes`,
		DisableFlagParsing: true,
		Args:               cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if slices.Contains(args, "--help") || slices.Contains(args, "-h") {
				return cmd.Help()
			}
			return WithHint(errors.New("a bridge needs Linux so far"),
				"run it on a Linux machine or virtual machine, by this program or its container image, or use kubectl through a node: see `kairos bridge --help`")
		},
	}
}
