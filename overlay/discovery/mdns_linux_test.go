package discovery

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/overlaytest/netns"
	"github.com/kairos-io/kairos/overlay/secret"
)

// patience bounds what these tests wait for; none of them waits that long.
const patience = 20 * time.Second

// again runs the calling test in a network namespace of its own, with one link on which
// multicast loops back to the machine; false in there.
func again(t *testing.T) bool {
	t.Helper()
	if netns.Outside(t) {
		return true
	}
	netns.IP(t,
		"link set lo up", "link add lan0 type veth peer name lan1", "link set lan1 up", "link set lan0 up",
		"addr add 10.77.0.1/24 dev lan0", "route add 224.0.0.0/4 dev lan0",
	)
	return false
}

// member announces itself until the test ends.
func member(t *testing.T, id byte, clock *testClock, changes <-chan struct{}) <-chan identity.ID {
	t.Helper()
	found := make(chan identity.ID, 64)
	m := &MDNS{
		Keys: []secret.Key{secret.NewKey([32]byte{1})}, Self: identity.ID{id}, Now: clock.now, Changes: changes,
		Addrs:  func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("10.77.0.1:4171")} },
		Usable: func(netip.Addr) bool { return true },
		Found: func(id identity.ID, _ []netip.AddrPort) {
			select {
			case found <- id:
			default:
			}
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		m.Run(ctx)
		close(done)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return found
}

func awaitFound(t *testing.T, found <-chan identity.ID, what string) {
	t.Helper()
	select {
	case <-found:
	case <-time.After(patience):
		t.Fatalf("%s: nothing heard within %s", what, patience)
	}
}

// Two machines whose clocks are decades apart find each other at once, and whoever is
// ahead hears the other as soon as that has followed.
func TestFoundWithWrongClocks(t *testing.T) {
	if again(t) {
		return
	}
	ahead := member(t, 1, clockAt(2050), nil)
	begin := time.Now()
	behind := member(t, 2, &testClock{time.Unix(0, 0)}, nil)
	awaitFound(t, behind, "the one behind")
	t.Logf("RESULT clocks 80 years apart: the one behind hears after %s", time.Since(begin))
	awaitFound(t, ahead, "the one ahead")
	t.Logf("RESULT clocks 80 years apart: both heard after %s", time.Since(begin))
}

// A member that is told of a change announces itself without waiting for anything else.
func TestAnnouncesChanges(t *testing.T) {
	if again(t) {
		return
	}
	clock := clockAt(2026)
	changes := make(chan struct{})
	hears := member(t, 1, clock, nil)
	member(t, 2, clock, changes)
	quiet := time.NewTimer(firstRepeat * 3 / 2) // the third announcement comes after four
	for waiting := true; waiting; {
		select {
		case <-hears:
		case <-quiet.C:
			waiting = false
		}
	}
	select {
	case changes <- struct{}{}:
	case <-time.After(patience):
		t.Fatal("nobody takes the change in")
	}
	begin := time.Now()
	awaitFound(t, hears, "after a change")
	if took := time.Since(begin); took > 2*firstRepeat {
		t.Errorf("heard %s after the change, which is when it would have been said anyway", took)
	}
	close(changes) // whoever tells may go away
	awaitFound(t, hears, "after that")
}
