package overlay

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/mesh"
)

// clones names the members whose identity key two machines have, as a disk that was
// copied makes them; nil if there are none. Records show it to everybody, connections
// to those who met both machines, with their addresses.
func clones(self identity.ID, members []*member.Member, met []mesh.Clone) error {
	const hint = "run `kairos reset` on one of the two machines, or remove its identity key and restart its network"
	names := map[identity.ID]string{}
	found := map[identity.ID]string{} // with where they are, if that is known
	for _, m := range members {
		names[m.ID] = m.Name
		if m.Cloned {
			found[m.ID] = ""
		}
	}
	for _, c := range met {
		found[c.ID] = ""
		if c.First.IsValid() && c.Second.IsValid() {
			found[c.ID] = fmt.Sprintf(" (at %s and %s)", c.First, c.Second)
		}
	}
	if len(found) == 0 {
		return nil
	}
	if where, mine := found[self]; mine {
		return &advice{text: "another machine has this machine's identity key" + where + ": one is a copy of the other", hint: hint}
	}
	var texts []string
	for id, where := range found {
		name := names[id]
		if name == "" {
			name = id.Short()
		}
		texts = append(texts, name+where)
	}
	slices.Sort(texts)
	return &advice{text: fmt.Sprintf("two machines have the identity key of %s: one is a copy of the other", strings.Join(texts, ", ")), hint: hint}
}
