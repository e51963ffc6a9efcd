// The kairos-agent program is what the units of a node start, one subcommand
// for each, and what kairos runs for the verbs of a node: see package node.
package main

import (
	"os"

	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/cmd/internal/node"
)

func main() { os.Exit(cli.Main(node.Program(os.Args[1:]))) }
