package dns

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
)

var (
	id1, id2, id3 = identity.ID{1}, identity.ID{2}, identity.ID{3}
	v41, v42, v43 = netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("10.7.0.2"), netip.MustParseAddr("10.7.0.3")
	v61, v62      = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
)

func TestZone(t *testing.T) {
	z := BuildZone("Kairos.Internal", []Host{
		{ID: id2, Name: "beta", Addrs: []netip.Addr{v42, v62}},
		{ID: id1, Name: "Alpha", Addrs: []netip.Addr{v41, v61}},
		{ID: id3, Name: "beta", Addrs: []netip.Addr{v43}},
	})
	for name, want := range map[string][]netip.Addr{
		"alpha":      {v41, v61},
		"beta":       {v42, v62}, // the lower ID has it
		id3.String(): {v43},      // and the other is not lost
		"gamma":      nil,
		"x.alpha":    nil,
	} {
		got, exists := z.lookup(name + ".kairos.internal.")
		if !reflect.DeepEqual(got, want) || exists != (want != nil) {
			t.Errorf("%s has %v (%v), want %v", name, got, exists, want)
		}
	}
	if addrs, exists := z.lookup("kairos.internal."); !exists || addrs != nil {
		t.Error("the domain itself should exist without addresses")
	}
	want := []string{
		"10.7.0.1 alpha.kairos.internal alpha",
		"10.7.0.2 beta.kairos.internal beta",
		"fd00::1 alpha.kairos.internal alpha",
		"fd00::2 beta.kairos.internal beta",
	}
	if got := z.hostsLines(); !reflect.DeepEqual(got, want) {
		t.Errorf("hosts lines:\n%s", strings.Join(got, "\n"))
	}
}

func TestNamesThatNobodyGets(t *testing.T) {
	for _, name := range []string{"", "-a", "a-", "a.b", "a b", "a\nb", "ä", "a_b", "localhost.", strings.Repeat("a", 64), id2.String()} {
		z := BuildZone(Domain, []Host{{ID: id1, Name: name, Addrs: []netip.Addr{v41}}, {ID: id2, Name: "b"}})
		if lines := z.hostsLines(); len(lines) != 0 {
			t.Errorf("name %q gets into the hosts file: %q", name, lines)
		}
		if addrs, _ := z.lookup(strings.ToLower(name) + ".kairos.internal."); len(addrs) != 0 && name != "" {
			t.Errorf("name %q resolves to %v", name, addrs)
		}
	}
}
