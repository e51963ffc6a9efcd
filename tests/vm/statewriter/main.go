// Command statewriter keeps saving a node's state the way the agent does, each
// time with a higher epoch, and tells every epoch that the store has promised to
// keep. Tests run it inside a machine and cut its power.
//
//	statewriter DIR           go on from what is there, until killed
//	statewriter DIR print     print the epoch that is there
package main

import (
	"fmt"
	"os"

	"github.com/kairos-io/kairos/agent/store"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	s, err := store.Open(args[0])
	if err != nil {
		return err
	}
	defer s.Close()
	state, _, err := s.Load()
	if err != nil {
		return err
	}
	if len(args) > 1 {
		fmt.Println(state.Epoch)
		return nil
	}
	for {
		state.Epoch++
		if err := s.Save(state); err != nil {
			return err
		}
		fmt.Println(state.Epoch)
	}
}
