package node

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/kairos-io/kairos/cmd/internal/cli"
)

// Program returns the program for the arguments of the process: what a person
// types is kairos, whichever of the two programs answers, and all else is
// kairos-agent, for the units.
func Program(args []string) cli.Program {
	if len(args) > 0 && (args[0] == "status" || slices.ContainsFunc(cli.NodeVerbs, func(v cli.NodeVerb) bool { return v.Name == args[0] })) {
		return verbs
	}
	return agentProgram
}

// verbs are those of a person.
func verbs(env *cli.Env) *cobra.Command {
	root := &cobra.Command{Use: "kairos"}
	root.AddCommand(newInstall(env), newUpgrade(env), newRollback(env), newReset(env),
		cli.NewStatus(env, func(root, output string) error { return writeOSStatus(env, root, output) }))
	for _, c := range root.Commands() {
		for _, v := range cli.NodeVerbs {
			if v.Name == c.Name() {
				c.Short = v.Short
			}
		}
	}
	return root
}

// agentProgram is what the units start.
func agentProgram(env *cli.Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "kairos-agent",
		Short: "Run the parts of a Kairos node; started by systemd, rarely by hand",
	}
	root.AddCommand(newIntake(env), newFetch(env), newHostname(env), newConfig(env), newOverlay(env), newRun(env),
		newBootCheck(env), newConsole(env), newInstaller(env), cli.NewVersion(env))
	return root
}
