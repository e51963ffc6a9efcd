package overlay

import (
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/route"
)

// ownerOf is who has the pods at addr, as the last turn decided.
func (m *machine) ownerOf(addr netip.Addr) identity.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, _ := m.world.before.Lookup(addr)
	return id
}

// A daemon that starts again, also after a reboot, hears the members in any
// order: pods stay with who had them (fault O14).
func TestPrefixesSurviveARestart(t *testing.T) {
	tok := newToken(t, 3)
	pod, pods := netip.MustParseAddr("10.42.7.1"), netip.MustParsePrefix("10.42.7.0/24")
	accept := api.Accept{NetworkID: "kairos", Range: netip.MustParsePrefix("10.42.0.0/16")}
	mine := Options{Token: tok, Name: "mine", StateDir: t.TempDir(), Routes: api.Routes{Accept: accept}}
	announce := api.Routes{Accept: accept, Announce: []netip.Prefix{pods}}
	theirs := Options{Token: tok, Name: "victim", StateDir: t.TempDir(), Routes: announce}

	m := boot(t, mine)
	victim := boot(t, theirs, m)
	id := victim.ID()
	m.await(t, "the victim's pods", func([]api.Node) bool { return m.ownerOf(pod) == id })
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := victim.Close(); err != nil {
		t.Fatal(err)
	}

	m = boot(t, mine)
	thief := boot(t, Options{Token: tok, Name: "thief", Routes: announce}, m)
	m.await(t, "the thief", connectedTo(thief.ID()))
	m.await(t, "the thief's record", func(nodes []api.Node) bool { return !absent(thief.ID())(nodes) })
	if got := m.ownerOf(pod); got != id {
		t.Errorf("who was heard first after the restart, %s, has the pods of %s", got.Short(), id.Short())
	}
	boot(t, theirs, m)
	m.await(t, "the victim again", connectedTo(id))
	if got := m.ownerOf(pod); got != id {
		t.Errorf("the pods went to %s", got.Short())
	}
	if s, err := loadState(mine.StateDir); err != nil || len(s.Prefixes) != 1 || s.Prefixes[0] != (keptPrefix{ID: id, Prefix: pods}) {
		t.Errorf("%s holds %v, %v", filepath.Join(mine.StateDir, stateFile), s.Prefixes, err)
	}
}

func TestStillKept(t *testing.T) {
	all := ids(3)
	prefix := netip.MustParsePrefix("10.42.7.0/24")
	w := world{claim: claim{id: all[0]}, kept: []route.Owned{{Prefix: prefix, ID: all[0]}, {Prefix: prefix, ID: all[1]}, {Prefix: prefix, ID: all[2]}},
		members: []member.Member{other(all[2], netip.Addr{}, false)}}
	if got := w.stillKept(time.Minute); len(got) != 3 {
		t.Errorf("before anything is accepted, no record tells, and %v is kept", got)
	}
	w.routes.Accept.Range = netip.MustParsePrefix("10.42.0.0/16")
	if got := w.stillKept(time.Minute); len(got) != 1 || got[0].ID != all[1] {
		t.Errorf("with one member heard %v is kept", got)
	}
	if got := w.stillKept(keptFor); len(got) != 0 {
		t.Errorf("after %s %v is kept", keptFor, got)
	}
}
