package upgrade

import (
	"testing"
	"time"

	"github.com/kairos-io/kairos/image/slots/slotstest"
	"github.com/kairos-io/kairos/image/upgrade/upgradetest"
)

// Each version is older than the next one.
func TestVersionsInOrder(t *testing.T) {
	order := []string{
		"v0.9", "v1.0.0-alpha", "v1.0.0-alpha.1", "v1.0.0-alpha.1-3-gabc1234", "v1.0.0-alpha.beta", "v1.0.0-beta.2", "v1.0.0-beta.11", "v1.0.0-rc1",
		"v1", "v1.0.0-1-gabcdef0", "v1.0.0-14-g0123456-dirty", "1.0.1", "v1.2.9", "v1.10.0", "v2", "2026.01.1-rc.09", "2026.01.1", "2026.2.01", "2026.12.1",
	}
	for i, a := range order {
		for j, b := range order {
			if got := (Age{Version: a}).Before(Age{Version: b}); got != (i < j) {
				t.Errorf("%s before %s: %t", a, b, got)
			}
		}
	}
}

func TestAges(t *testing.T) {
	early, late := time.Unix(1_700_000_000, 0), time.Unix(1_800_000_000, 0)
	for _, tt := range []struct {
		name string
		a, b Age
		want bool
	}{
		{"the same", Age{"v1", early}, Age{"v1", early}, false},
		{"dirty is the same", Age{"v1-dirty", early}, Age{"v1", early}, false},
		{"the same version, made earlier", Age{"v1", early}, Age{"v1", late}, true},
		{"a fix of an old line, made later", Age{"v1.2.9", late}, Age{"v1.3.0", early}, true},
		{"a new line, made earlier", Age{"v1.3.0", early}, Age{"v1.2.9", late}, false},
		{"commits have dates only", Age{"d7e8553", early}, Age{"1234567", late}, true},
		{"commits, the other way round", Age{"d7e8553", late}, Age{"1234567", early}, false},
		{"a tag after a commit", Age{"v1", late}, Age{"d7e8553", early}, false},
		{"a tag before a commit", Age{"v1", early}, Age{"d7e8553", late}, true},
		{"from before releases had dates", Age{"d7e8553", time.Time{}}, Age{"1234567", early}, true},
		{"what runs has none either", Age{"d7e8553", time.Time{}}, Age{"1234567", time.Time{}}, false},
		{"what runs has none", Age{"d7e8553", early}, Age{"1234567", time.Time{}}, false},
		{"a number no machine word holds", Age{"v99999999999999999999.0.0", early}, Age{"v1.0.0", late}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.a.Before(tt.b); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

// A registry that serves an old release is found out, by what the release and
// the slot say of themselves.
func TestOlderThanRuns(t *testing.T) {
	m := newMachine(t, slotstest.New("v2.0.0", "amd64"))
	for version, want := range map[string]bool{"v1.9.9": true, "v2.0.0": false, "v2.0.1": false, "main": false} {
		dir, _ := layoutOf(t, "x", upgradetest.New(slotstest.New(version, "amd64")))
		offer, err := Find(t.Context(), at(t, "oci:"+dir))
		must(t, err)
		if got := offer.OlderThanRuns(m.status()); got != want {
			t.Errorf("%s: %t", version, got)
		}
		want := New
		if version == "v1.9.9" {
			want = Older
		}
		if version == "v2.0.0" {
			want = Current
		}
		if got := offer.NewsOf(m.status()); got != want {
			t.Errorf("%s is %s, want %s", version, got, want)
		}
	}
}

// What a release says of its date is in the record of its slot.
func TestDateIsRecorded(t *testing.T) {
	m := newMachine(t, slotstest.New("aaaaaaa", "amd64"))
	d := upgradetest.New(slotstest.New("bbbbbbb", "amd64"))
	d.Config["created"] = "2026-11-26T12:00:00Z"
	dir, _ := layoutOf(t, "x", d)
	must(t, m.stage(at(t, "oci:"+dir)))
	r := m.status().Other.Record
	if r == nil || !r.Created.Equal(day) {
		t.Errorf("recorded %+v", r)
	}
}
