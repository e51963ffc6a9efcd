package rights

import (
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/wire"
)

// TestMay is the whole policy: what each kind of member may do in the cluster "home".
func TestMay(t *testing.T) {
	all := []Right{Peer, Route, Vote, Join, Seed, Leave, Serve, Grant, Return}
	for _, tc := range []struct {
		name   string
		member Rights
		may    []Right
	}{
		{"a machine of the cluster", Of(wire.Record{ID: identity.ID{1}, Kind: wire.KindNode, NetworkID: "home"}), []Right{Peer, Route, Vote, Join, Seed, Leave, Serve, Return}},
		{"a machine whose cluster is disabled", Of(wire.Record{ID: identity.ID{1}, Kind: wire.KindNode, NetworkID: "home", Annotations: map[string]string{NotePhase: PhaseDisabled}}),
			[]Right{Peer, Route, Join, Seed, Leave, Serve, Return}},
		{"a machine that leaves", Of(wire.Record{ID: identity.ID{1}, Kind: wire.KindNode, NetworkID: "home", Annotations: map[string]string{NotePhase: PhaseLeaving}}),
			[]Right{Peer, Route, Join, Seed, Leave, Serve, Return}},
		{"a machine of another", Of(wire.Record{ID: identity.ID{1}, Kind: wire.KindNode, NetworkID: "office"}), []Right{Peer, Return}},
		{"a machine of none", Of(wire.Record{ID: identity.ID{1}, Kind: wire.KindNode}), []Right{Peer, Return}},
		{"a person", Of(wire.Record{ID: identity.ID{1}, Kind: wire.KindBridge, NetworkID: "home"}), []Right{Peer, Grant}},
		{"a person who looks at another cluster", Of(wire.Record{ID: identity.ID{1}, Kind: wire.KindBridge, NetworkID: "office"}), []Right{Peer, Grant}},
		{"who said goodbye", Of(wire.Record{ID: identity.ID{1}, Kind: wire.KindNode, NetworkID: "home", Left: true}), nil},
		{"another kind", Of(wire.Record{ID: identity.ID{1}, Kind: "king", NetworkID: "home"}), nil},
		{"nobody", Of(wire.Record{Kind: wire.KindNode, NetworkID: "home"}), nil},
		{"the zero value", Rights{}, nil},
	} {
		for _, r := range append(all, 0, 99) {
			want := false
			for _, m := range tc.may {
				want = want || m == r
			}
			if got := tc.member.May(r, "home"); got != want {
				t.Errorf("%s may %s: %v", tc.name, r, got)
			}
		}
		for _, r := range []Right{Route, Vote, Join, Seed, Leave, Serve} {
			if tc.member.May(r, "") {
				t.Errorf("%s may %s in the cluster without a name", tc.name, r)
			}
		}
	}
}

func TestClaim(t *testing.T) {
	notes := map[string]string{NoteRoleWanted: "master", NoteRole: "server", NoteClusterUID: "u", NoteEpoch: "3", NoteServer: "10.1.0.1:6443",
		NoteCA: "c", NoteWaiting: "w", NoteImages: "i", NoteVotes: VotesNo, "unknown": "x"}
	r := Of(wire.Record{ID: identity.ID{1}, Kind: wire.KindNode, NetworkID: "home", Annotations: notes})
	want := Claim{Wanted: "master", Role: "server", UID: "u", Epoch: 3, Server: "10.1.0.1:6443", CA: "c", Waiting: "w", Images: "i", Abstains: true}
	if c, ok := r.Claim("home"); !ok || c != want || !c.Serves() {
		t.Errorf("got %+v, %v", c, ok)
	}
	if c, ok := r.Claim("office"); ok || c != (Claim{}) {
		t.Errorf("in another cluster it says %+v", c)
	}
	if c, _ := Of(wire.Record{ID: identity.ID{1}, Kind: wire.KindBridge, NetworkID: "home", Annotations: notes}).Claim("home"); c.Serves() {
		t.Error("a person runs a server")
	}
	notes[NoteEpoch] = "many"
	if c, _ := r.Claim("home"); c.Epoch != 0 {
		t.Errorf("epoch %d", c.Epoch)
	}
}

// A member chooses its name itself: it must not take another's.
func TestName(t *testing.T) {
	id := identity.ID{1}
	for name, want := range map[string]string{
		"a-" + id.Short(): "a-" + id.Short(), "b-" + identity.ID{2}.Short(): "", "github.com": "", "": "",
	} {
		if got := Of(wire.Record{ID: id, Name: name, Kind: wire.KindBridge}).Name(); got != want {
			t.Errorf("%q is called %q", name, got)
		}
	}
}
