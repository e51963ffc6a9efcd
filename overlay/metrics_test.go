package overlay

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/datapath"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Members of kinds that this version does not know are members, and counted together.
func TestMembersOfUnknownKinds(t *testing.T) {
	a := boot(t, Options{Token: newToken(t, 1), Name: "kinds"})
	var members []*member.Member
	for i := range 3 {
		members = append(members, &member.Member{Record: wire.Record{Kind: fmt.Sprintf("kind%d", i)}})
	}
	got := map[string]float64{}
	for _, m := range a.memberMetrics(members, datapath.Stats{}) {
		if m.Name == "members" {
			got[fmt.Sprint(m.Labels)] = m.Value
		}
	}
	if len(got) != 3 {
		t.Errorf("series: %v", got)
	}
	for labels, n := range got {
		if strings.Contains(labels, kindOther) && n != 3 {
			t.Errorf("%s: %v, want 3", labels, n)
		}
	}
}
