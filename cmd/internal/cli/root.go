package cli

import "github.com/spf13/cobra"

// Kairos is the program of a person: kairos.
func Kairos(env *Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "kairos",
		Short: "Make a Kubernetes cluster of machines anywhere from one shared secret",
		Long: `Make a Kubernetes cluster of machines anywhere from one shared secret.

  kairos generate-token -o yaml > config.yaml     boot every machine with it
  sudo kairos bridge --network-token-file FILE    join their network from here
  kairos get-kubeconfig > kubeconfig              in a second window`,
	}
	root.AddCommand(newGenerateToken(env), newBridge(env), newStatus(env), newGetKubeconfig(env),
		newInstall(env), newUpgrade(env), newRollback(env), newReset(env), newVersion(env))
	return root
}

// Agent is the program of a node's units: kairos-agent.
func Agent(env *Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "kairos-agent",
		Short: "Run the parts of a Kairos node; started by systemd, rarely by hand",
	}
	root.AddCommand(newIntake(env), newFetch(env), newHostname(env), newConfig(env), newOverlay(env), newRun(env),
		newBootCheck(env), newConsole(env), newInstaller(env), newVersion(env))
	return root
}
