package overlay

import (
	"fmt"
	"strings"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/member"
)

// clones names the members whose identity key two machines have, as a disk that was
// copied makes them; nil if there are none.
func clones(self identity.ID, members []*member.Member) error {
	const hint = "run `kairos reset` on one of the two machines, or remove its identity key and restart its network"
	var names []string
	for _, m := range members {
		switch {
		case !m.Cloned:
		case m.ID == self:
			return &advice{text: "another machine has this machine's identity key: one is a copy of the other", hint: hint}
		default:
			names = append(names, m.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return &advice{text: fmt.Sprintf("two machines have the identity key of %s: one is a copy of the other", strings.Join(names, ", ")), hint: hint}
}
