package overlaytest

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kairos-io/kairos/overlay/gossip"
	"github.com/kairos-io/kairos/overlay/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slow makes anti-entropy too rare to help: what arrives, arrives as a delta.
func slow(_ int, c *gossip.Config) { c.Interval = time.Hour }

func TestConverge(t *testing.T) {
	for _, n := range []int{2, 8, 16} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			begin := time.Now()
			net := New(t, n, Options{Gossip: slow})
			net.WaitConnected()
			net.WaitConverged()
			t.Logf("RESULT %d nodes alike after %s", n, time.Since(begin).Round(time.Millisecond))
		})
	}
}

// A change reaches everybody at once, each of many.
func TestChangesSpread(t *testing.T) {
	net := New(t, 8, Options{Gossip: slow})
	net.WaitConnected()
	net.WaitConverged()
	for round := range 5 {
		for _, n := range net.Nodes {
			n.Publish(map[string]string{"round": fmt.Sprint(round)})
		}
		begin := time.Now()
		for _, n := range net.Nodes {
			net.WaitAnnotation(n, "round", fmt.Sprint(round))
		}
		t.Logf("RESULT 8 changes known to 8 nodes after %s", time.Since(begin).Round(time.Millisecond))
	}
	net.WaitConverged()
	var sent, digests uint64
	for _, n := range net.Nodes {
		sent += n.Gossip.Stats().RecordsSent
		digests += n.Gossip.Stats().DigestsSent
	}
	// 6 versions of 8 records go to 7 others, and each of these passes it on to 3.
	if most := uint64(6 * 8 * 7 * (1 + 3)); sent > most {
		t.Errorf("%d records sent, want at most %d", sent, most)
	}
	t.Logf("RESULT %d records and %d digests sent for 48 versions", sent, digests)
}

// Who is not connected to the author hears of a change through others.
func TestChangesPassOn(t *testing.T) {
	net := New(t, 3, Options{Gossip: slow})
	net.WaitConnected()
	net.WaitConverged()
	// 0 and 2 lose each other, both keep 1.
	net.Cut(0, 2)
	net.Eventually(func() string {
		if net.Nodes[0].Mesh.Connected(net.Nodes[2].ID()) || net.Nodes[2].Mesh.Connected(net.Nodes[0].ID()) {
			return "still connected"
		}
		return ""
	})
	net.Nodes[0].Publish(map[string]string{"by": "way of 1"})
	net.WaitAnnotation(net.Nodes[0], "by", "way of 1")
}

func TestPartitionAndHeal(t *testing.T) {
	net := New(t, 6, Options{Gossip: slow})
	net.WaitConnected()
	net.WaitConverged()
	left, right := []int{0, 1, 2}, []int{3, 4, 5}
	net.Part(left, right)
	net.Eventually(func() string {
		for _, i := range left {
			if n := len(net.Nodes[i].Mesh.Peers()); n != 2 {
				return fmt.Sprintf("node %d has %d peers", i, n)
			}
		}
		return ""
	})
	net.Nodes[1].Publish(map[string]string{"side": "left"})
	net.Nodes[4].Publish(map[string]string{"side": "right"})
	net.WaitAnnotation(net.Nodes[1], "side", "left", left...)
	net.WaitAnnotation(net.Nodes[4], "side", "right", right...)
	for _, i := range right {
		if m, ok := net.Nodes[i].Gossip.Members().Get(net.Nodes[1].ID()); !ok || m.Annotations["side"] != "" {
			t.Errorf("node %d heard through the partition, or forgot: %v", i, ok)
		}
	}
	net.Heal()
	begin := time.Now()
	net.WaitConnected()
	net.WaitAnnotation(net.Nodes[1], "side", "left")
	net.WaitAnnotation(net.Nodes[4], "side", "right")
	net.WaitConverged()
	t.Logf("RESULT healed after %s", time.Since(begin).Round(time.Millisecond))
}

// A node that restarts is believed again: its records count on.
func TestRestart(t *testing.T) {
	net := New(t, 3, Options{Gossip: slow})
	net.WaitConnected()
	net.WaitConverged()
	node := net.Nodes[2]
	node.Publish(map[string]string{"life": "first"})
	net.WaitAnnotation(node, "life", "first")
	node.Stop()
	net.Eventually(func() string {
		if net.Nodes[0].Mesh.Connected(node.ID()) || net.Nodes[1].Mesh.Connected(node.ID()) {
			return "the stopped node is connected"
		}
		return ""
	})
	node.Start()
	node.Publish(map[string]string{"life": "second"})
	net.WaitConnected()
	net.WaitAnnotation(node, "life", "second")
	net.WaitConverged()
}

// A node whose disk lost the count of its starts still gets through: it jumps
// over its earlier records as soon as somebody shows them.
func TestRestartWithoutState(t *testing.T) {
	net := New(t, 3, Options{Gossip: func(i int, c *gossip.Config) {
		slow(i, c)
		if i == 2 {
			c.Incarnation = 7 - c.Incarnation // counts down
		}
	}})
	net.WaitConnected()
	net.WaitConverged()
	node := net.Nodes[2]
	node.Publish(map[string]string{"life": "first"})
	net.WaitAnnotation(node, "life", "first")
	node.Stop()
	node.Start()
	node.Publish(map[string]string{"life": "second"})
	net.WaitAnnotation(node, "life", "second")
	net.WaitConverged()
}

// A goodbye takes a member off everybody's list at once.
func TestLeave(t *testing.T) {
	net := New(t, 3, Options{Gossip: slow})
	net.WaitConnected()
	net.WaitConverged()
	node := net.Nodes[2]
	if err := node.Gossip.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	node.Stop()
	net.Eventually(func() string {
		for _, n := range net.Running() {
			if _, ok := n.Gossip.Members().Get(node.ID()); ok {
				return fmt.Sprintf("node %d still lists it", n.Index)
			}
		}
		return ""
	})
	if err := node.Gossip.Publish(wire.Record{}); err == nil {
		t.Error("a member that left can publish")
	}
}
