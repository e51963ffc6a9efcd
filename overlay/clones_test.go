package overlay

import (
	"errors"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/wire"
)

func TestClonesAreNamed(t *testing.T) {
	all := ids(3)
	m := func(id identity.ID, name string, cloned bool) *member.Member {
		return &member.Member{Record: wire.Record{ID: id, Name: name}, Cloned: cloned}
	}
	for _, c := range []struct {
		name    string
		members []*member.Member
		want    string
	}{
		{"none", []*member.Member{m(all[0], "a", false), m(all[1], "b", false)}, ""},
		{"others", []*member.Member{m(all[1], "b", true), m(all[2], "c", true)}, "b, c"},
		{"this one", []*member.Member{m(all[0], "a", true), m(all[1], "b", true)}, "this machine's"},
	} {
		err := clones(all[0], c.members)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		var a *advice
		if !errors.As(err, &a) || !strings.Contains(a.text, c.want) || !strings.Contains(a.hint, "kairos reset") {
			t.Errorf("%s: %v, want one that names %s and the way out", c.name, err, c.want)
		}
	}
}
