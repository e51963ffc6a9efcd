package mesh

import (
	"slices"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/underlay"
)

// count reads events for a time and counts those of a peer by kind.
func count(events <-chan Event, peer identity.ID, d time.Duration) map[EventKind]int {
	seen := make(map[EventKind]int)
	for end := time.After(d); ; {
		select {
		case e := <-events:
			if e.Peer == peer {
				seen[e.Kind]++
			}
		case <-end:
			return seen
		}
	}
}

// Two machines with one key do not throw each other out: who is there stays, the other
// is turned away and waits longer and longer, and all three know. When the first is
// gone, the other comes in.
func TestClonedDisk(t *testing.T) {
	for _, via := range transports {
		t.Run(via.String(), func(t *testing.T) {
			keys, key := testKeys(t), testKey(t)
			hub := start(t, Config{Keys: keys, NoQUIC: via == underlay.TCP})
			events, cancel := hub.Events()
			defer cancel()
			first := start(t, Config{Keys: keys, Key: key, Peers: texts(hub.Underlay())})
			await(t, events, PeerUp, key.ID())
			until(t, "the first is connected", func() bool { return first.Connected(hub.ID()) })

			second := start(t, Config{Keys: keys, Key: key, Peers: texts(hub.Underlay())})
			await(t, events, CloneSeen, key.ID())
			seen := count(events, key.ID(), 3*time.Second)
			if seen[PeerDown]+seen[PeerUp] > 0 || seen[CloneSeen] > 0 {
				t.Errorf("the hub saw %v", seen)
			}
			if !first.Connected(hub.ID()) || second.Connected(hub.ID()) {
				t.Error("the first one is not the one that stays")
			}
			if n := second.Stats().Dials; n > 8 {
				t.Errorf("the second dialled %d times in 3 s", n)
			}
			at := hub.Peers()[0].Remote
			if c := hub.Clones(); len(c) != 1 || c[0].ID != key.ID() || c[0].Self || c[0].First != at || !c[0].Second.IsValid() || c[0].Second == at {
				t.Errorf("the hub knows of %+v", c)
			}
			for name, m := range map[string]*Mesh{"first": first, "second": second} {
				until(t, name+" is told", func() bool {
					return slices.ContainsFunc(m.Clones(), func(c Clone) bool { return c.ID == key.ID() && c.Self })
				})
			}

			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			until(t, "the first is gone", func() bool { return !hub.Connected(key.ID()) })
			second.networkChanged(second.Underlay(), true) // or some seconds later
			await(t, events, PeerUp, key.ID())
		})
	}
}

// However often a clone calls, what it costs is bounded, and the one that is there
// stays.
func TestManyCallsOfAClone(t *testing.T) {
	keys, key := testKeys(t), testKey(t)
	hub := start(t, Config{Keys: keys})
	events, cancel := hub.Events()
	defer cancel()
	first := start(t, Config{Keys: keys, Key: key, Peers: texts(hub.Underlay())})
	await(t, events, PeerUp, key.ID())
	until(t, "the first is connected", func() bool { return first.Connected(hub.ID()) })
	clone := start(t, Config{Keys: keys, Key: key})
	for range 40 {
		_ = comeIn(t, clone, hub) // it is turned away, maybe before it has read the answer
	}
	await(t, events, CloneSeen, key.ID())
	if seen := count(events, key.ID(), time.Second); seen[PeerDown]+seen[PeerUp] > 0 {
		t.Errorf("the hub saw %v", seen)
	}
	if n := conns(hub, key.ID()); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// Nobody takes a peer that restarts for a clone.
func TestRestartIsNoClone(t *testing.T) {
	for _, via := range transports {
		t.Run(via.String(), func(t *testing.T) {
			keys, key := testKeys(t), testKey(t)
			hub := start(t, Config{Keys: keys, NoQUIC: via == underlay.TCP})
			events, cancel := hub.Events()
			defer cancel()
			for range 5 {
				m := start(t, Config{Keys: keys, Key: key, Peers: texts(hub.Underlay())})
				await(t, events, PeerUp, key.ID())
				if err := m.Close(); err != nil {
					t.Fatal(err)
				}
				await(t, events, PeerDown, key.ID())
			}
			if c := hub.Clones(); len(c) > 0 {
				t.Errorf("taken for clones: %+v", c)
			}
		})
	}
}
