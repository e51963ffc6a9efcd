package cli

import "github.com/spf13/cobra"

// Kairos is the program of a person: kairos. What changes a machine's operating
// system is in its node's program, which these verbs run: see node.go.
func Kairos(env *Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "kairos",
		Short: "Make a Kubernetes cluster of machines anywhere from one shared secret",
		Long: `Make a Kubernetes cluster of machines anywhere from one shared secret.

  kairos generate-token -o yaml > config.yaml     boot every machine with it
  sudo kairos bridge --network-token-file FILE    join their network from here
  kairos get-kubeconfig > kubeconfig              in a second window`,
	}
	root.AddCommand(newGenerateToken(env), newBridge(env), NewStatus(env, nil), newGetKubeconfig(env), NewVersion(env))
	for _, v := range NodeVerbs {
		root.AddCommand(newNodeVerb(v))
	}
	return root
}

// bridgeShort is for the list of commands, on every platform.
const bridgeShort = "Join the network of your machines from here, until Ctrl-C"
