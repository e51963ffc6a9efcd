package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
)

// NodeVerb is a verb of a person that only a node of the network has: it is about
// the operating system of the machine itself.
type NodeVerb struct {
	Name  string
	Short string // for the list of commands
}

// NodeVerbs are all of them. The node's program carries them out.
var NodeVerbs = []NodeVerb{
	{"install", "Install this system on another disk of this machine"},
	{"upgrade", "Put a new version of the operating system on this machine"},
	{"rollback", "Go back to the version of the operating system in the other slot"},
	{"reset", "Take this machine out of its cluster and wipe its data"},
}

// Where the node's program is: beside this one, or where the OS image has it.
const (
	nodeProgram = "kairos-agent"
	inOSImage   = "/usr/bin/" + nodeProgram
)

// errNoNode: the node's program is not here, so this machine's operating system is
// not one of kairos mesh.
var errNoNode = errors.New("this machine is no node of kairos mesh")

// newNodeVerb is a verb of the node's program, which reads the flags itself.
func newNodeVerb(v NodeVerb) *cobra.Command {
	return &cobra.Command{
		Use:   v.Name,
		Short: v.Short,
		Long: fmt.Sprintf(`%s.

It is for the machine on which it is typed, which must be a node: there
`+"`kairos %s --help`"+` shows its flags.`, v.Short, v.Name),
		DisableFlagParsing: true,
		Args:               cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := onNode(v.Name, append([]string{v.Name}, args...))
			if errors.Is(err, errNoNode) && (slices.Contains(args, "--help") || slices.Contains(args, "-h")) {
				return cmd.Help()
			}
			return err
		},
	}
}

// onNode runs the node's program in place of this one; command is what a person
// types for it. It returns only if it cannot.
func onNode(command string, args []string) error {
	own, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the program of the node: %w", err)
	}
	path := findNode(filepath.Join(filepath.Dir(own), nodeProgram), inOSImage)
	if path == "" {
		return WithHint(fmt.Errorf("%w: `kairos %s` is about the operating system of the machine it is typed on", errNoNode, command),
			"type it on the machine that is meant: `ssh NODE sudo kairos %s`", command)
	}
	if err := execute(path, args); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}

// findNode returns the first of the paths that can be run, or "".
func findNode(paths ...string) string {
	i := slices.IndexFunc(paths, func(p string) bool {
		info, err := os.Stat(p)
		return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
	})
	if i < 0 {
		return ""
	}
	return paths[i]
}
