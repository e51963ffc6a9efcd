package overlay

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

func TestKeepNetwork(t *testing.T) {
	here, there := [32]byte{1}, [32]byte{2}
	v4, other := netip.MustParsePrefix("10.200.0.0/16"), netip.MustParsePrefix("10.201.0.0/16")
	old := state{
		Version: stateVersion, NetID: hex.EncodeToString(here[:]), Network: v4, Attempt: 3, Pinned: true, Incarnation: 7,
		Seen: []seenMember{{ID: identity.ID{1}}},
	}
	loose := old
	loose.Pinned = false
	young := loose
	young.NetID = ""
	for _, c := range []struct {
		name  string
		from  state
		netID [32]byte
		v4    netip.Prefix
		want  func(*state)
		err   error
	}{
		{"nothing changed", old, here, v4, func(*state) {}, nil},
		{"a first start", state{Version: stateVersion}, here, v4, func(s *state) { *s = state{Version: s.Version, NetID: old.NetID, Network: v4} }, nil},
		{"a state that does not say its network", young, here, v4, func(s *state) { s.NetID = old.NetID }, nil},
		{"another range", old, here, other, func(s *state) { s.Network, s.Attempt, s.Pinned = other, 0, false }, nil},
		{"another network", loose, there, v4, func(s *state) {
			*s = state{Version: s.Version, Incarnation: 7, NetID: hex.EncodeToString(there[:]), Network: v4}
		}, nil},
		{"another network, pinned", old, there, v4, func(*state) {}, ErrNetwork},
		{"another network and range, pinned", old, there, other, func(*state) {}, ErrNetwork},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, want := c.from, c.from
			if err := got.keepNetwork(c.netID, c.v4); !errors.Is(err, c.err) {
				t.Errorf("%v, want %v", err, c.err)
			}
			if c.want(&want); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// A mistaken token must not take the pinned address of a machine: it starts again, as it
// was, with the right one. Doors may change, the network stays.
func TestMistakenToken(t *testing.T) {
	dir, tok := t.TempDir(), newToken(t, 1)
	a := boot(t, Options{Token: tok, Name: "mistaken", StateDir: dir})
	if err := a.Pin(); err != nil {
		t.Fatal(err)
	}
	addr := a.Status().Addresses
	closeAll(t, a)
	before, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	keys := tok.Keys()
	if text := string(before); !strings.Contains(text, hex.EncodeToString(keys.NetID[:])) || strings.Contains(text, tok.Reveal()[8:]) {
		t.Errorf("the state does not name the network by its public name: %s", text)
	}
	_, err = Start(t.Context(), Options{Token: newToken(t, 1), Kind: api.KindNode, Name: "mistaken", Interface: "mistaken", StateDir: dir})
	if !errors.Is(err, ErrNetwork) {
		t.Errorf("with a token of another network: %v, want ErrNetwork", err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, stateFile)); err != nil || string(after) != string(before) {
		t.Errorf("the state was changed: %s, %v", after, err)
	}
	a = boot(t, Options{Token: tok, Name: "mistaken", StateDir: dir})
	if s := a.Status(); !slices.Equal(s.Addresses, addr) || !s.Pinned {
		t.Errorf("with the right token it came back as %+v", s)
	}
}

// A machine that gets another name after it was pinned stays who it is: as a second
// member, and a second Kubernetes node, the first would be missed for ever (fault T3).
func TestRenamedMachine(t *testing.T) {
	dir, tok := t.TempDir(), newToken(t, 1)
	begin := func(name string) *machine { return boot(t, Options{Token: tok, Name: name, StateDir: dir}) }
	a := begin("first")
	closeAll(t, a)
	a = begin("before") // nothing relies on the name yet
	kept := a.Status().Name
	if !strings.HasPrefix(kept, "before-") {
		t.Fatalf("it is called %s", kept)
	}
	if err := a.Pin(); err != nil {
		t.Fatal(err)
	}
	closeAll(t, a)
	a = begin("after")
	if got := a.Status().Name; got != kept {
		t.Errorf("it is called %s, not %s", got, kept)
	}
	if c := a.awaitCondition(t, conditionRenamed, true); !strings.Contains(c.Text, "renamed to after, and stays "+kept) || !strings.Contains(c.Hint, "kairos reset") {
		t.Errorf("told %q, %q", c.Text, c.Hint)
	}
	closeAll(t, a)
	begin("before").awaitCondition(t, conditionRenamed, false)
}

// What a later version wrote into the state files survives a run of this one: a machine
// that goes back to an earlier version, and forward again, has lost nothing.
func TestStateOfALaterVersion(t *testing.T) {
	state, run, tok := t.TempDir(), t.TempDir(), newToken(t, 1)
	begin := func() *machine {
		return boot(t, Options{Token: tok, Name: "later", StateDir: state, RuntimeDir: run})
	}
	a := begin()
	routes := api.Routes{Local: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")}}
	if err := errors.Join(a.SetRoutes(routes), a.SetAnnotations(map[string]string{"a": "1"})); err != nil {
		t.Fatal(err)
	}
	closeAll(t, a)

	files := map[string][]string{ // where something is planted; "" is the top
		filepath.Join(state, stateFile): {""},
		filepath.Join(run, controlFile): {"", "routes"},
	}
	planted := json.RawMessage(`{"deep":[1,{"x":1e400}]}`)
	for path, places := range files {
		all := object(t, path, nil)
		for _, place := range places {
			at := all
			if place != "" {
				at = object(t, "", all[place])
			}
			at["planted"] = planted
			if place != "" {
				all[place] = encode(t, at)
			}
		}
		if err := os.WriteFile(path, encode(t, all), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a = begin()
	if err := errors.Join(a.SetAnnotations(map[string]string{"a": "2"}), a.Pin()); err != nil {
		t.Fatal(err)
	}
	closeAll(t, a)
	for path, places := range files {
		all := object(t, path, nil)
		for _, place := range places {
			at := all
			if place != "" {
				at = object(t, "", all[place])
			}
			if got := encode(t, map[string]json.RawMessage{"": at["planted"]}); string(got) != `{"":`+string(planted)+`}` {
				t.Errorf("%s: %q: what was planted became %s", path, place, got)
			}
		}
	}
	if s := object(t, filepath.Join(state, stateFile), nil); string(s["pinned"]) != "true" || string(s["starts"]) != "2" {
		t.Errorf("this version's own fields: %s, %s", s["pinned"], s["starts"])
	}
}

// Another version number says that fields mean something else.
func TestStateOfAnotherVersion(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(`{"version": 2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadState(dir); !errors.Is(err, errState) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("state: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, controlFile), []byte(`{"version": 2, "annotations": {"a": "1"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	// What the agent said can be had again.
	a := boot(t, Options{Token: newToken(t, 1), Name: "another", RuntimeDir: dir})
	if self := a.Nodes(t.Context(), 0).Nodes; len(self) != 1 || len(self[0].Annotations) != 0 {
		t.Errorf("says %+v", self)
	}
}

// Hints of a form that this version does not know are passed over.
func TestSeenMemberHints(t *testing.T) {
	s := seenMember{Underlay: []string{"192.0.2.1:4171", "/dns/a/udp/1", "[fe80::1%eth0]:1", "[2001:db8::1]:2", ""}}
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:4171"), netip.MustParseAddrPort("[2001:db8::1]:2")}
	if got := s.addrs(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Addresses that the token carries are tried besides those of the configuration.
func TestPeersOfTheToken(t *testing.T) {
	tok, err := newToken(t, 2).WithPeers([]string{"192.0.2.1:4171", "a.example:1"})
	if err != nil {
		t.Fatal(err)
	}
	own := []string{"b.example", "a.example:1"}
	o := Options{Token: tok, Kind: api.KindNode, Peers: own[:2:2]}
	if err := o.check(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"b.example", "a.example:1", "192.0.2.1:4171"}; !slices.Equal(o.Peers, want) {
		t.Errorf("%v, want %v", o.Peers, want)
	}
}

func closeAll(t *testing.T, m *machine) {
	t.Helper()
	m.client.CloseIdle()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// object reads a file, or raw, without touching what is in its members.
func object(t *testing.T, path string, raw json.RawMessage) (out map[string]json.RawMessage) {
	t.Helper()
	if path != "" {
		var err error
		if raw, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func encode(t *testing.T, v map[string]json.RawMessage) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
