package overlay

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/datapath"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Members of kinds that this version does not know are members, and counted together.
func TestMembersOfUnknownKinds(t *testing.T) {
	a := boot(t, Options{Token: newToken(t, 1), Name: "kinds"})
	for i := range 3 {
		key, err := identity.Generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s, err := wire.Seal(key, wire.Record{Seq: 1, Name: "x", Kind: fmt.Sprintf("kind%d", i)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.table.Merge(s, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]float64{}
	for _, m := range a.memberMetrics(datapath.Stats{}) {
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
