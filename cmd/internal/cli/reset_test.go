package cli

import (
	"strings"
	"testing"
	"testing/iotest"

	"github.com/kairos-io/kairos/agent/store"
)

// What a person has to type before data is lost: the machine's name, and the
// cluster's where it ends.
func TestResetAsks(t *testing.T) {
	server := membership{role: store.Server, networkID: "home"}
	tests := []struct {
		name  string
		in    membership
		flags resetFlags
		input string
		end   string // network_id that the agent is told
		want  string // "" for consent
	}{
		{"the name", membership{}, resetFlags{}, "alpha-aeaaaa\n", "", ""},
		{"another name", membership{}, resetFlags{}, "beta\n", "", "nothing was changed: that was not alpha-aeaaaa"},
		{"y is no name", membership{}, resetFlags{}, "y\n", "", "nothing was changed: that was not alpha-aeaaaa"},
		{"nothing", membership{}, resetFlags{}, "", "", "nothing was changed: that was not alpha-aeaaaa"},
		{"--yes", membership{}, resetFlags{yes: true}, "", "", ""},
		{"the server, both names", server, resetFlags{}, "alpha-aeaaaa\nhome\n", "home", ""},
		{"the server, one name", server, resetFlags{}, "alpha-aeaaaa\n", "", "nothing was changed: that was not home"},
		{"the server, its end is a flag", server, resetFlags{endCluster: "home"}, "alpha-aeaaaa\n", "home", ""},
		{"the server, nothing is asked", server, resetFlags{yes: true, endCluster: "home"}, "", "home", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env, out := person("", true)
			env.Stdin = iotest.OneByteReader(strings.NewReader(tt.input)) // a terminal gives no more than a line
			r := &resetter{env: env, f: tt.flags, name: "alpha-aeaaaa"}
			r.in = tt.in
			err := r.ask(t.Context())
			if got := errorText(err); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if r.f.endCluster != tt.end {
				t.Errorf("the agent is told to end %q", r.f.endCluster)
			}
			if !tt.flags.yes && !strings.Contains(out.String(), "kairos: type alpha-aeaaaa to reset this machine: ") {
				t.Errorf("asked %q", out.String())
			}
		})
	}
}
