package overlay

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/secret"
	"github.com/kairos-io/kairos/overlay/wire"
)

// testNetwork has room for 254 members, so that collisions are easily made.
func testNetwork(t *testing.T) identity.Network {
	t.Helper()
	n, err := identity.NetworkOf(secret.NewKey([32]byte{1}), netip.MustParsePrefix("10.200.7.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// ids returns n IDs in rising order.
func ids(n int) []identity.ID {
	var out []identity.ID
	for i := range n {
		out = append(out, identity.ID{byte(i + 1)})
	}
	return out
}

func other(id identity.ID, addr netip.Addr, pinned bool) *member.Member {
	return &member.Member{Record: wire.Record{
		ID: id, Name: "other-" + id.Short(), Kind: api.KindNode, NetworkID: "kairos", Addrs: []netip.Addr{addr}, Pinned: pinned,
	}}
}

func TestSettle(t *testing.T) {
	net, all := testNetwork(t), ids(3)
	low, self, high := all[0], all[1], all[2]
	mine := claim{id: self, network: net}
	for _, tc := range []struct {
		name    string
		pinned  bool
		other   *member.Member
		moves   bool
		rivalry bool
	}{
		{name: "no conflict", other: other(low, net.V4Addr(self, 1), false)},
		{name: "the lower ID keeps", other: other(low, mine.addr(), false), moves: true},
		{name: "the higher ID rehashes, so this one stays", other: other(high, mine.addr(), false)},
		{name: "a pinned higher ID keeps", other: other(high, mine.addr(), true), moves: true},
		{name: "pinned here, not there", pinned: true, other: other(low, mine.addr(), false)},
		{name: "pinned here, and there with a higher ID", pinned: true, other: other(high, mine.addr(), true)},
		{name: "pinned here, and there with a lower ID", pinned: true, other: other(low, mine.addr(), true), rivalry: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := mine
			c.pinned = tc.pinned
			w := world{claim: c, name: "me", kind: api.KindNode, members: []*member.Member{tc.other}}
			next, rival := c.resolve(w.table())
			if (next != c) != tc.moves {
				t.Errorf("moved from %s to %s", c.addr(), next.addr())
			}
			if rival.IsZero() == tc.rivalry {
				t.Errorf("rival %s", rival.Short())
			}
		})
	}
}

// TestSettleConverges lets members of a crowded range settle, each seeing the
// others' last record, until nobody moves.
func TestSettleConverges(t *testing.T) {
	net := testNetwork(t)
	var claims []claim
	for _, id := range ids(120) {
		claims = append(claims, claim{id: id, network: net})
	}
	for round := 1; ; round++ {
		if round > 60 {
			t.Fatal("still moving after 60 rounds")
		}
		var members []*member.Member
		for _, c := range claims {
			members = append(members, other(c.id, c.addr(), c.pinned))
		}
		moved := 0
		for i, c := range claims {
			next, _ := c.resolve(world{claim: c, members: members}.table())
			if next != c {
				moved++
			}
			claims[i] = next
		}
		if moved == 0 {
			break
		}
	}
	seen := map[netip.Addr]bool{}
	for _, c := range claims {
		if seen[c.addr()] {
			t.Errorf("%s twice", c.addr())
		}
		seen[c.addr()] = true
	}
}

func TestKernelRoutes(t *testing.T) {
	net, self := testNetwork(t), ids(1)[0]
	pods, services := netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("10.43.0.0/16")
	w := world{claim: claim{id: self, network: net}, routes: api.Routes{
		Accept: api.Accept{NetworkID: "kairos", Range: pods}, Local: []netip.Prefix{services, pods},
	}}
	got := w.kernelRoutes()
	if len(got) != 2 || got[0].Prefix != pods || got[1].Prefix != services {
		t.Fatalf("got %v", got)
	}
	for _, r := range got {
		if r.Src != w.claim.addr() {
			t.Errorf("source %s", r.Src)
		}
	}
	if got := (world{claim: w.claim}).kernelRoutes(); len(got) != 0 {
		t.Errorf("without routes: %v", got)
	}
}

// TestHosts: a member cannot take another's address into the zone.
func TestHosts(t *testing.T) {
	net, all := testNetwork(t), ids(3)
	a, liar := all[0], all[1]
	w := world{claim: claim{id: all[2], network: net}, name: "me", members: []*member.Member{
		other(a, net.V4Addr(a, 0), false),
		other(liar, net.V4Addr(a, 0), false),
	}}
	hosts := w.hosts()
	if len(hosts) != 3 {
		t.Fatalf("got %v", hosts)
	}
	if got := hosts[0].Addrs; !slices.Equal(got, []netip.Addr{net.V4Addr(a, 0)}) {
		t.Errorf("owner: %v", got)
	}
	if got := hosts[1].Addrs; len(got) != 0 {
		t.Errorf("liar: %v", got)
	}
	if got := hosts[2]; len(got.Addrs) != 2 || got.Name != "me" {
		t.Errorf("this member: %v", got)
	}
}

// TestHostsBelieveOnlyOwnNames: a member's name ends in its ID, so it is neither
// another member's nor one of the world outside.
func TestHostsBelieveOnlyOwnNames(t *testing.T) {
	net, all := testNetwork(t), ids(3)
	thief, victim, self := all[0], all[1], all[2]
	for _, name := range []string{"other-" + victim.Short(), "me", "registry", thief.Short(), "x" + thief.Short()} {
		m := other(thief, net.V4Addr(thief, 0), false)
		m.Name = name
		w := world{claim: claim{id: self, network: net}, name: "me", members: []*member.Member{m, other(victim, net.V4Addr(victim, 0), false)}}
		hosts := w.hosts()
		if hosts[0].ID != thief || hosts[0].Name != "" || hosts[1].Name != "other-"+victim.Short() {
			t.Errorf("%q: got %v", name, hosts)
		}
	}
}

func TestMemberName(t *testing.T) {
	id := ids(1)[0]
	for in, want := range map[string]string{
		"alpha":                 "alpha-" + id.Short(),
		"Alpha.example.org":     "alpha-" + id.Short(),
		"my_host":               "my-host-" + id.Short(),
		"":                      "node-" + id.Short(),
		"---":                   "node-" + id.Short(),
		"größe":                 "gr--e-" + id.Short(),
		strings.Repeat("x", 90): strings.Repeat("x", 56) + "-" + id.Short(),
	} {
		if got := MemberName(in, id); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestClusterOf(t *testing.T) {
	all := ids(3)
	node := func(id identity.ID, network string, notes ...string) api.Node {
		n := api.Node{ID: id, Kind: api.KindNode, NetworkID: network, Annotations: map[string]string{}}
		for i := 0; i < len(notes); i += 2 {
			n.Annotations[notes[i]] = notes[i+1]
		}
		return n
	}
	server := func(id identity.ID, uid string) api.Node {
		return node(id, "home", api.NoteRole, "server", api.NoteServer, "10.1.2.3:6443", api.NoteClusterUID, uid, api.NoteEpoch, "2")
	}
	for _, tc := range []struct {
		name             string
		nodes            []api.Node
		wantErr, wantUID string
		conflict         bool
	}{
		{name: "nobody", wantErr: `no node of network_id "home"`},
		{name: "another cluster", nodes: []api.Node{node(all[0], "other")}, wantErr: "no node"},
		{name: "forming", nodes: []api.Node{node(all[0], "home", api.NoteWaiting, "1 more node")}, wantErr: "1 more node"},
		{name: "silent", nodes: []api.Node{node(all[0], "home")}, wantErr: "no server has announced itself"},
		{name: "running", nodes: []api.Node{node(all[0], "home"), server(all[1], "u1")}, wantUID: "u1"},
		{name: "two clusters", nodes: []api.Node{server(all[0], "u1"), server(all[1], "u2")}, wantUID: "u1", conflict: true},
		{name: "nonsense", nodes: []api.Node{node(all[0], "home", api.NoteRole, "server", api.NoteServer, "x", api.NoteEpoch, "soon")}, wantErr: "no server"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := clusterOf("home", tc.nodes)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil || c.UID != tc.wantUID || (c.Conflict != "") != tc.conflict || c.Endpoint != "https://10.1.2.3:6443" {
				t.Errorf("got %+v, %v", c, err)
			}
		})
	}
}
