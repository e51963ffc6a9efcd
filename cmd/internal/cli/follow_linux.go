package cli

import (
	"fmt"

	"github.com/kairos-io/kairos/overlay"
)

// Follow tells in one line how a network is, now and whenever that changes:
// what is waited for, and that it came. It ends with the node.
func Follow(node *overlay.Node, tell func(line string)) {
	var revision uint64
	last := ""
	for {
		list := node.Nodes(node.Context(), revision)
		if node.Context().Err() != nil {
			return
		}
		revision = list.Revision
		connected := 0
		for _, n := range list.Nodes {
			if n.Connected {
				connected++
			}
		}
		others := len(list.Nodes) - 1
		line := fmt.Sprintf("connected to %d of %s", connected, count(others, "other member"))
		if w := node.Status().Waiting; w != "" {
			line = "waiting for " + w
		}
		if line != last && others >= connected { // a member's record comes just after its connection
			tell(line)
			last = line
		}
	}
}

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
