// The kairos program is the command line of a person: see package cli.
package main

import (
	"os"

	"github.com/kairos-io/kairos/cmd/internal/cli"
)

func main() { os.Exit(cli.Main(cli.Kairos)) }
