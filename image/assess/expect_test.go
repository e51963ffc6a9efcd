package assess

import (
	"reflect"
	"testing"
)

// What could not be asked again is as it was; what answers is believed.
func TestRecall(t *testing.T) {
	was := server()
	was.Conditions = []string{"AddressConflict"}
	seen := Expect{When: noon, Configured: true, NICs: was.NICs, Probes: []Probe{gateway}}
	whole := *was
	for _, tt := range []struct {
		name    string
		now     Expect
		was     *Expect
		silence Silence
		want    Expect
	}{
		{"nothing before", seen, nil, Silence{true, true}, seen},
		{"neither answers", seen, was, Silence{true, true}, whole},
		{"no longer in a cluster, and alone for the moment", seen, was, Silence{}, func() Expect {
			e := seen
			e.Mesh, e.Probes = true, whole.Probes
			return e
		}()},
		{"the agent is silent", *meshed(), was, Silence{Agent: true}, func() Expect { e := *server(); return e }()},
		{"the overlay's trouble is known", *worker(), was, Silence{}, *worker()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.now.Recall(tt.was, tt.silence); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}
