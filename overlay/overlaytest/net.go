package overlaytest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/gossip"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/mesh"
	"github.com/kairos-io/kairos/overlay/token"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Patience bounds every wait. Nothing needs it; it is what a test on a very
// busy machine may take before it fails.
const Patience = 60 * time.Second

// Options change what New starts; the zero value is fine.
type Options struct {
	Keys   token.Keys                  // default: a fresh token's
	Mesh   func(i int, c *mesh.Config) // last word on node i's configuration
	Gossip func(i int, c *gossip.Config)
	// Alone leaves out the configured peer: by default every node is told the
	// address of node 0.
	Alone bool
}

// Net is a number of nodes.
type Net struct {
	Nodes []*Node

	t    testing.TB
	opts Options

	mu    sync.Mutex
	group map[identity.ID]int     // the side of a partition that a node is on
	cuts  map[[2]identity.ID]bool // pairs that do not see each other
}

// Node is one of them. Mesh and Gossip are nil while it is stopped.
type Node struct {
	Index  int
	Key    identity.Key
	Mesh   *mesh.Mesh
	Gossip *gossip.Gossip

	net    *Net
	starts uint32
	listen netip.AddrPort // the port stays over restarts
	stop   func()
}

// New starts n nodes, which stop at the end of the test.
func New(t testing.TB, n int, opts Options) *Net {
	t.Helper()
	if opts.Keys.IsZero() {
		tok, err := token.Generate(rand.Reader, 3)
		if err != nil {
			t.Fatal(err)
		}
		opts.Keys = tok.Keys()
	}
	net := &Net{t: t, opts: opts, group: make(map[identity.ID]int), cuts: make(map[[2]identity.ID]bool)}
	for i := range n {
		key, err := identity.Generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		net.Nodes = append(net.Nodes, &Node{Index: i, Key: key, net: net, listen: netip.MustParseAddrPort("127.0.0.1:0")})
	}
	t.Cleanup(func() {
		var stopping sync.WaitGroup
		for _, node := range net.Nodes {
			stopping.Go(node.Stop)
		}
		stopping.Wait()
	})
	for _, node := range net.Nodes {
		node.Start()
	}
	return net
}

// ID returns the node's ID, also while it is stopped.
func (n *Node) ID() identity.ID { return n.Key.ID() }

// Start starts a stopped node: same key, same port, an empty table.
func (n *Node) Start() {
	t := n.net.t
	t.Helper()
	if n.stop != nil {
		t.Fatalf("node %d runs already", n.Index)
	}
	cfg := mesh.Config{
		Key: n.Key, Keys: n.net.opts.Keys, Listen: []netip.AddrPort{n.listen}, Loopback: true,
		Allow: func(peer identity.ID) bool { return n.net.together(n.ID(), peer) },
	}
	if testing.Verbose() {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", n.Index)
	}
	if first := n.net.Nodes[0]; n.Index > 0 && !n.net.opts.Alone {
		cfg.Peers = []string{first.listen.String()}
	}
	if n.net.opts.Mesh != nil {
		n.net.opts.Mesh(n.Index, &cfg)
	}
	m, err := mesh.New(context.Background(), cfg)
	if err != nil {
		t.Fatalf("start node %d: %v", n.Index, err)
	}
	n.listen = m.Underlay()[0]
	n.starts++
	n.Mesh = m
	gc := gossip.Config{Key: n.Key, Mesh: mesh.Plain{Mesh: m}, Incarnation: n.starts, Log: cfg.Log}
	if n.net.opts.Gossip != nil {
		n.net.opts.Gossip(n.Index, &gc)
	}
	n.Gossip = gossip.New(gc)
	n.Publish(nil)
	n.run()
}

func (n *Node) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := n.Gossip.Run(ctx); err != nil {
			n.net.t.Errorf("gossip of node %d: %v", n.Index, err)
		}
	})
	m := n.Mesh
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := m.Close(); err != nil {
			n.net.t.Errorf("close node %d: %v", n.Index, err)
		}
		running.Wait()
	})
}

// Stop closes the node's mesh as a daemon that ends does. It may be called twice.
func (n *Node) Stop() {
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
}

// Running reports whether the node is started.
func (n *Node) Running() bool { return n.stop != nil }

// Record is what the node publishes by default.
func (n *Node) Record() wire.Record {
	return wire.Record{
		Name: fmt.Sprintf("n%d", n.Index), Kind: wire.KindNode, NetworkID: "test", Underlay: n.Mesh.Underlay(),
	}
}

// Publish publishes the node's default record with these annotations.
func (n *Node) Publish(annotations map[string]string) {
	n.net.t.Helper()
	r := n.Record()
	r.Annotations = annotations
	if err := n.Gossip.Publish(r); err != nil {
		n.net.t.Fatalf("publish of node %d: %v", n.Index, err)
	}
}

// Part makes the groups of nodes strangers to each other: their connections
// are closed and new ones refused. Nodes in no group are alone.
func (net *Net) Part(groups ...[]int) {
	net.mu.Lock()
	for _, n := range net.Nodes {
		net.group[n.ID()] = -1 - n.Index
	}
	for g, members := range groups {
		for _, i := range members {
			net.group[net.Nodes[i].ID()] = g + 1
		}
	}
	net.mu.Unlock()
	net.sever()
}

// Cut makes two nodes strangers to each other, and to nobody else.
func (net *Net) Cut(i, j int) {
	a, b := net.Nodes[i].ID(), net.Nodes[j].ID()
	net.mu.Lock()
	net.cuts[[2]identity.ID{a, b}], net.cuts[[2]identity.ID{b, a}] = true, true
	net.mu.Unlock()
	net.sever()
}

// sever closes the connections between strangers.
func (net *Net) sever() {
	for _, n := range net.Running() {
		for _, o := range net.Nodes {
			if !net.together(n.ID(), o.ID()) {
				n.Mesh.Disconnect(o.ID())
			}
		}
	}
}

// Heal undoes Part and Cut.
func (net *Net) Heal() {
	net.mu.Lock()
	defer net.mu.Unlock()
	clear(net.group)
	clear(net.cuts)
}

func (net *Net) together(a, b identity.ID) bool {
	net.mu.Lock()
	defer net.mu.Unlock()
	return net.group[a] == net.group[b] && !net.cuts[[2]identity.ID{a, b}]
}

// Eventually waits until cond holds, or fails the test with what cond says is
// missing.
func (net *Net) Eventually(cond func() (missing string)) {
	net.t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		missing := cond()
		if missing == "" {
			return
		}
		select {
		case <-look.C:
		case <-deadline.C:
			net.t.Fatalf("after %s: %s", Patience, missing)
		}
	}
}

// Running returns the started nodes among those named, all when none is.
func (net *Net) Running(only ...int) []*Node {
	var out []*Node
	for _, n := range net.Nodes {
		if n.Running() && (len(only) == 0 || slices.Contains(only, n.Index)) {
			out = append(out, n)
		}
	}
	return out
}

// WaitConnected waits until all running nodes (of those named) are connected to each other.
func (net *Net) WaitConnected(only ...int) {
	net.t.Helper()
	net.Eventually(func() string {
		for _, a := range net.Running(only...) {
			for _, b := range net.Running(only...) {
				if a != b && !a.Mesh.Connected(b.ID()) {
					return fmt.Sprintf("node %d is not connected to node %d", a.Index, b.Index)
				}
			}
		}
		return ""
	})
}

// WaitConverged waits until the tables of all running nodes (of those named)
// hold the same versions of the same records, theirs among them.
func (net *Net) WaitConverged(only ...int) {
	net.t.Helper()
	net.Eventually(func() string {
		nodes := net.Running(only...)
		want := nodes[0].versions()
		for _, n := range nodes {
			if _, ok := want[n.ID()]; !ok {
				return fmt.Sprintf("node %d does not know node %d", nodes[0].Index, n.Index)
			}
			if got := n.versions(); !equal(got, want) {
				return fmt.Sprintf("nodes %d and %d differ: %d and %d records", nodes[0].Index, n.Index, len(want), len(got))
			}
		}
		return ""
	})
}

func (n *Node) versions() map[identity.ID]uint64 {
	out := make(map[identity.ID]uint64)
	for _, m := range n.Gossip.Members().List() {
		out[m.ID] = m.Seq
	}
	return out
}

func equal(a, b map[identity.ID]uint64) bool {
	if len(a) != len(b) {
		return false
	}
	for id, seq := range a {
		if b[id] != seq {
			return false
		}
	}
	return true
}

// WaitAnnotation waits until all running nodes (of those named) know that
// node of says key=value.
func (net *Net) WaitAnnotation(of *Node, key, value string, only ...int) {
	net.t.Helper()
	net.Eventually(func() string {
		for _, n := range net.Running(only...) {
			if m, ok := n.Gossip.Members().Get(of.ID()); !ok || m.Annotations[key] != value {
				return fmt.Sprintf("node %d does not know that node %d says %s=%s", n.Index, of.Index, key, value)
			}
		}
		return ""
	})
}
