package cli

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/token"
)

type generateFlags struct {
	nodes            int
	output, ownerKey string
	peers            []string
}

func newGenerateToken(env *Env) *cobra.Command {
	var f generateFlags
	cmd := &cobra.Command{
		Use:   "generate-token",
		Short: "Print a new network token",
		Long: `Print a new network token: the one secret that all machines of a network share.

It also says how many machines there will be, so that a part of them that cannot
see the others never starts a second cluster. More may join later.

With --owner-key the network has an owner: the token names the key in FILE, which
belongs on no machine of the network. It cannot be added to a token later.`,
		Example: "  kairos generate-token --nodes 5\n  kairos generate-token -o yaml > config.yaml",
	}
	flags := cmd.Flags()
	flags.IntVar(&f.nodes, "nodes", token.DefaultNodes, fmt.Sprintf("how many machines will start the cluster, 1 to %d", token.MaxNodes))
	flags.StringVarP(&f.output, "output", "o", "text", "text: the token alone; yaml: a cloud-config to boot machines with")
	flags.StringVar(&f.ownerKey, "owner-key", "", "new file for the key of the network's owner; only its fingerprint goes into the token")
	flags.StringArrayVar(&f.peers, "peer", nil, "host:port where a machine can be found, for those that do not hear it on their local network")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.check(cmd); err != nil {
			return err
		}
		t, err := f.generate(env)
		if err != nil {
			return err
		}
		writeToken(env, t, f.output)
		if !cmd.Flags().Changed("nodes") {
			env.Say("%d is the default: if more than %d machines may start in groups that do not see each other, say how many with --nodes N, or two groups can each start a cluster", t.Nodes(), mostVoters(t))
		}
		env.Say("whoever has it can join: keep it secret")
		return nil
	}
	return cmd
}

func (f *generateFlags) check(cmd *cobra.Command) error {
	switch {
	case f.output != "text" && f.output != "yaml":
		return Usagef("output must be text or yaml, not %q", f.output)
	case f.nodes < 1 || f.nodes > token.MaxNodes:
		return Usagef("nodes must be from 1 to %d, not %d", token.MaxNodes, f.nodes)
	case cmd.Flags().Changed("owner-key") && f.ownerKey == "":
		return Usagef("--owner-key needs the name of a new file")
	}
	return nil
}

// generate makes the owner's key last: whatever is wrong with the rest leaves no file.
func (f *generateFlags) generate(env *Env) (token.Token, error) {
	t, err := token.Generate(rand.Reader, f.nodes)
	if err != nil {
		return t, err
	}
	if t, err = t.WithPeers(f.peers); err != nil {
		return t, Usagef("--peer: %w", err)
	}
	if f.ownerKey == "" {
		return t, nil
	}
	key, err := identity.NewKeyFile(f.ownerKey, rand.Reader)
	if errors.Is(err, fs.ErrExist) {
		return t, WithHint(Usagef("--owner-key: %s is there already, and no key is ever overwritten", f.ownerKey), "name a file that does not exist yet")
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return t, WithHint(fmt.Errorf("--owner-key: %w", err), "make the token where a file can be kept from other users: on Linux or macOS")
	}
	if err != nil {
		return t, fmt.Errorf("--owner-key: %w", err)
	}
	env.Say("the owner's key is in %s: keep it, and a copy, where no machine of the network is", f.ownerKey)
	return t.WithOwner(token.PinOf(key.ID())), nil
}

func writeToken(env *Env, t token.Token, output string) {
	if output == "yaml" {
		fmt.Fprintf(env.Result(), cloudConfig, t.Reveal())
	} else {
		fmt.Fprintln(env.Result(), t.Reveal())
	}
	if t.Nodes() == 1 {
		env.Say("made for one machine: it starts a cluster alone; use it on one machine only until that cluster runs")
	} else {
		env.Say("made for %d machines: the cluster starts once %d of them see each other", t.Nodes(), t.Quorum())
	}
}

// mostVoters is how many machines can vote before two quorums of them need not
// share one.
func mostVoters(t token.Token) int { return 2*t.Quorum() - 1 }

const cloudConfig = `#cloud-config
# The same on every machine of the network.
kairos:
  network_token: "%s"
  network_id: "kairos"  # name of the cluster; several may share a network
  role: ""              # master | worker; empty: decided automatically
`
