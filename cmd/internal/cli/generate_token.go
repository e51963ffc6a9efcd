package cli

import (
	"crypto/rand"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kairos-io/kairos/overlay/token"
)

func newGenerateToken(env *Env) *cobra.Command {
	var nodes int
	var output string
	cmd := &cobra.Command{
		Use:   "generate-token",
		Short: "Print a new network token",
		Long: `Print a new network token: the one secret that all machines of a network share.

It also says how many machines there will be, so that a part of them that cannot
see the others never starts a second cluster. More may join later.`,
		Example: "  kairos generate-token --nodes 5\n  kairos generate-token -o yaml > config.yaml",
	}
	cmd.Flags().IntVar(&nodes, "nodes", token.DefaultNodes, fmt.Sprintf("how many machines will start the cluster, 1 to %d", token.MaxNodes))
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text: the token alone; yaml: a cloud-config to boot machines with")
	cmd.RunE = func(*cobra.Command, []string) error {
		if output != "text" && output != "yaml" {
			return usagef("output must be text or yaml, not %q", output)
		}
		if nodes < 1 || nodes > token.MaxNodes {
			return usagef("nodes must be from 1 to %d, not %d", token.MaxNodes, nodes)
		}
		t, err := token.Generate(rand.Reader, nodes)
		if err != nil {
			return err
		}
		writeToken(env, t, output)
		return nil
	}
	return cmd
}

func writeToken(env *Env, t token.Token, output string) {
	if output == "yaml" {
		fmt.Fprintf(env.result(), cloudConfig, t.Reveal())
	} else {
		fmt.Fprintln(env.result(), t.Reveal())
	}
	if t.Nodes() == 1 {
		env.say("made for one machine: it starts a cluster alone; use it on one machine only until that cluster runs")
	} else {
		env.say("made for %d machines: the cluster starts once %d of them see each other", t.Nodes(), t.Quorum())
	}
	env.say("whoever has it can join: keep it secret")
}

const cloudConfig = `#cloud-config
# The same on every machine of the network.
kairos:
  network_token: "%s"
  network_id: "kairos"  # name of the cluster; several may share a network
  role: ""              # master | worker; empty: decided automatically
`
