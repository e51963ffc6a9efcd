package overlay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/gossip"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/mesh"
	"github.com/kairos-io/kairos/overlay/rights"
	"github.com/kairos-io/kairos/overlay/route"
	"github.com/kairos-io/kairos/overlay/tun"
)

// Implementation constants of the loop.
const (
	// idleTurn is how often the loop looks even if nothing happened: so it
	// repeats what failed, and keeps what it knows of others' addresses.
	idleTurn = 30 * time.Second
	// turnPause is the least time between two turns: a member that changes its
	// record all the time must not keep this machine busy. The first of a row of
	// changes is heeded at once.
	turnPause = 20 * time.Millisecond
	// aliveTimeout is how long a probe may take through the loop.
	aliveTimeout = 10 * time.Second
	// saveEvery is how often addresses of others are written to disk at most.
	saveEvery = 10 * time.Minute
)

// applied is what the last turn did, to tell whether something is new.
type applied struct {
	revision uint64 // of the table
	peers    []identity.ID
	paths    []string
	saved    time.Time
	kept     time.Time // when the prefixes were written down
}

// wake makes the loop take a turn soon.
func (n *Node) wake() {
	select {
	case n.wakeup <- struct{}{}:
	default:
	}
}

// loop takes a turn whenever something may have changed.
func (n *Node) loop(ctx context.Context) error {
	tick := time.NewTicker(idleTurn)
	defer tick.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case answer := <-n.probes:
			answer <- nil
			continue
		case <-n.wakeup:
		case <-n.gossip.Changes():
		case <-n.device.Changed():
		case <-tick.C:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
		n.reconcile()
		pause.Reset(turnPause)
	}
}

// Alive returns nil if the node's loop still turns and the mesh still answers;
// it is what a watchdog should ask.
func (n *Node) Alive() error {
	timer := time.NewTimer(aliveTimeout)
	defer timer.Stop()
	answer := make(chan error, 1)
	select {
	case n.probes <- answer:
	case <-n.ctx.Done():
		return errors.New("the network has stopped")
	case <-timer.C:
		return fmt.Errorf("the loop did not turn for %s", aliveTimeout)
	}
	// The locks of mesh and datapath: whoever holds one for good stops this.
	n.mesh.Peers()
	n.datapath.Stats()
	return <-answer
}

// follow passes the mesh's events on to who must know at once.
func (n *Node) follow(ctx context.Context) error {
	events, cancel := n.mesh.Events()
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-events:
			if !ok {
				return nil
			}
			n.event(e)
		}
	}
}

func (n *Node) event(e mesh.Event) {
	switch e.Kind {
	case mesh.PeerUp:
		n.datapath.PeerUp(e.Peer, n.candidates(e.Peer)...)
		n.opts.Log.Info("peer connected", "peer", e.Peer.Short())
	case mesh.PeerDown:
		n.datapath.PeerDown(e.Peer)
		n.opts.Log.Info("peer disconnected", "peer", e.Peer.Short())
	case mesh.PathsChanged:
		n.datapath.Candidates(e.Peer, n.candidates(e.Peer)...)
	case mesh.PathChanged:
		n.datapath.ConnectionChanged(e.Peer)
	case mesh.UnderlayChanged:
		n.datapath.NetworkChanged()
	}
	n.wake()
}

// reconcile is one turn: observe, compute, act, publish.
func (n *Node) reconcile() {
	underlay, seen := n.mesh.Underlay(), n.gossip.Members()
	members := seen.List()

	n.mu.Lock()
	gone := departed(n.world.members, members)
	n.world.underlay = underlay
	table := n.moveLocked(members)
	n.world.before = table
	w := n.world
	w.members = members
	n.world.kept = w.stillKept(time.Since(n.started))
	n.mu.Unlock()

	n.hangUp(gone)
	n.datapath.SetRoutes(table)
	n.condition(conditionInterface, "error", n.device.SetAddrs(w.kernelAddrs()))
	n.condition(conditionRoutes, "warning", n.setRoutes(w))
	n.condition(conditionShadowed, "warning", n.shadowed())
	if err := n.gossip.Publish(w.record()); !errors.Is(err, gossip.ErrLeft) {
		n.condition(conditionRecord, "error", err)
	}
	n.condition(conditionDNS, "warning", n.unnamed(n.names.set(w.hosts())))
	n.show(seen) // after the above: whoever sees a member can also reach it
	n.condition(conditionRenamed, "warning", n.renamed())
	n.condition(conditionAlone, "warning", n.alone())
	n.condition(conditionCloned, "warning", clones(n.ID(), members, n.mesh.Clones()))
	n.saveSometimes()
	n.keepPrefixes(table)
}

// departed returns who is in before and not in after. Both are sorted by ID.
func departed(before, after []*member.Member) []identity.ID {
	var gone []identity.ID
	for _, m := range before {
		_, found := slices.BinarySearchFunc(after, m.ID, func(m *member.Member, id identity.ID) int { return m.ID.Compare(id) })
		if !found {
			gone = append(gone, m.ID)
		}
	}
	return gone
}

// hangUp disconnects from members that said goodbye: those that expire have no
// connection. The leaving member waits for it.
func (n *Node) hangUp(gone []identity.ID) {
	for _, id := range gone {
		if id != n.ID() && n.mesh.Connected(id) {
			n.mesh.Disconnect(id)
		}
	}
}

// moveLocked moves to another address if this one was lost to one of the
// members, and returns the table that follows.
func (n *Node) moveLocked(members []*member.Member) *route.Table {
	w := n.world
	w.members = members
	table := w.table()
	next, rival := n.world.claim.resolve(table)
	delete(n.conditions, conditionAddress)
	if !rival.IsZero() {
		n.conditions[conditionAddress] = api.Condition{
			Code: conditionAddress, Severity: "error",
			Text: fmt.Sprintf("the member %s has this member's address %s, and both keep it for their clusters", rival.Short(), next.addr()),
			Hint: "reset one of the two machines",
		}
	}
	if next == n.world.claim {
		return table
	}
	n.opts.Log.Warn("another member has this address, taking the next", "addr", n.world.claim.addr(), "next", next.addr())
	n.world.claim, n.state.Attempt = next, next.attempt
	n.warn("save the new address", n.writeState(n.state))
	w.claim = next
	return w.table()
}

// show makes what was seen, in which this one's record may be missing or old, the
// answer of the API, and tells who waits for a revision if there is something
// new to see.
func (n *Node) show(seen *member.Snapshot) {
	next, members := applied{revision: seen.Revision()}, seen.List()
	peers := n.mesh.Peers()
	for _, p := range peers {
		next.peers = append(next.peers, p.ID)
		next.paths = append(next.paths, p.Transport)
	}
	if self, ok := n.gossip.Members().Get(n.ID()); ok {
		members = withSelf(members, self)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	next.saved, next.kept = n.applied.saved, n.applied.kept
	if len(peers) == 0 && n.connected > 0 {
		n.aloneSince = time.Now()
		n.watchAlone()
	}
	n.world.members, n.connected = members, len(peers)
	if n.applied.revision == next.revision && slices.Equal(n.applied.peers, next.peers) && slices.Equal(n.applied.paths, next.paths) {
		return
	}
	n.applied = next
	n.revision++
	close(n.changed)
	n.changed = make(chan struct{})
}

// withSelf returns members, sorted by ID, with self in its place. It is a copy if
// something has to change: members are shared.
func withSelf(members []*member.Member, self *member.Member) []*member.Member {
	i, found := slices.BinarySearchFunc(members, self.ID, func(m *member.Member, id identity.ID) int { return m.ID.Compare(id) })
	if found && members[i] == self {
		return members
	}
	members = slices.Clone(members)
	if found {
		members[i] = self
		return members
	}
	return slices.Insert(members, i, self)
}

// setRoutes sets the kernel's routes. A range that this host routes elsewhere
// is left to the host.
func (n *Node) setRoutes(w world) error {
	err := n.device.SetRoutes(w.kernelRoutes())
	if errors.Is(err, tun.ErrRouteTaken) {
		return fmt.Errorf("pods are not reachable from here: %w", err)
	}
	return err
}

// ready implements /readyz: the interface is configured and the underlay listens.
func (n *Node) ready() error {
	if n.ctx.Err() != nil {
		return errors.New("the network is stopping")
	}
	if len(n.mesh.Underlay()) == 0 {
		return errors.New("this machine has no address to be reached at")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conditionsLocked() {
		if c.Severity == "error" {
			return errors.New(c.Text)
		}
	}
	return nil
}

// saveSometimes keeps where others were reached, for a start without discovery.
func (n *Node) saveSometimes() {
	n.mu.Lock()
	due := time.Since(n.applied.saved) >= saveEvery
	if due {
		n.applied.saved = time.Now()
	}
	n.mu.Unlock()
	if due {
		n.saveSeen()
	}
}

// saveSeen writes where members are, the connected address first.
func (n *Node) saveSeen() {
	if n.opts.StateDir == "" {
		return
	}
	var seen []seenMember
	peers := n.peersByID()
	for _, m := range n.gossip.Members().List() {
		if m.ID == n.ID() || !rights.Of(m.Record).May(rights.Return, n.opts.NetworkID) {
			continue
		}
		s := seenMember{ID: m.ID, Underlay: texts(m.Underlay)}
		if p, ok := peers[m.ID]; ok {
			s.Underlay = append([]string{p.Remote.String()}, s.Underlay...)
		}
		seen = append(seen, s)
	}
	if len(seen) == 0 {
		return // nobody is met: what was known stays worth a try
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state.Seen = seen
	n.warn("save where members are", n.writeState(n.state))
}
