// The kairos-agent program is what the units of a node start, one subcommand
// for each: see package cli.
package main

import (
	"os"

	"github.com/kairos-io/kairos/cmd/internal/cli"
)

func main() { os.Exit(cli.Main(cli.Agent)) }
