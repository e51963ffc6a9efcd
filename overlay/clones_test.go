package overlay

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/mesh"
	"github.com/kairos-io/kairos/overlay/wire"
)

func TestClonesAreNamed(t *testing.T) {
	all := ids(3)
	first, second := netip.MustParseAddrPort("192.0.2.1:4171"), netip.MustParseAddrPort("192.0.2.2:4171")
	m := func(id identity.ID, name string, cloned bool) *member.Member {
		return &member.Member{Record: wire.Record{ID: id, Name: name}, Cloned: cloned}
	}
	for _, c := range []struct {
		name    string
		members []*member.Member
		met     []mesh.Clone
		want    string
	}{
		{"none", []*member.Member{m(all[0], "a", false), m(all[1], "b", false)}, nil, ""},
		{"others", []*member.Member{m(all[1], "b", true), m(all[2], "c", true)}, nil, "b, c"},
		{"this one", []*member.Member{m(all[0], "a", true), m(all[1], "b", true)}, nil, "this machine's"},
		{"met", []*member.Member{m(all[1], "b", false)}, []mesh.Clone{{ID: all[1], First: first, Second: second}}, "b (at 192.0.2.1:4171 and 192.0.2.2:4171)"},
		{"met without a record", nil, []mesh.Clone{{ID: all[2]}}, all[2].Short()},
		{"this one, told", nil, []mesh.Clone{{ID: all[0], Self: true}}, "this machine's"},
	} {
		err := clones(all[0], c.members, c.met)
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
