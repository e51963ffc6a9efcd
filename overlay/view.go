package overlay

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/datapath"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/mesh"
	"github.com/kairos-io/kairos/overlay/path"
)

var _ api.View = (*Node)(nil)

// Status implements api.View.
func (n *Node) Status() api.Status {
	refused := n.refused()
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.world
	return api.Status{
		ID: w.claim.id, Name: w.name, Kind: w.kind, NetworkID: w.networkID, Version: w.version,
		Interface: n.opts.Interface, MTU: n.mtu,
		Addresses: w.claim.addrs(), Pinned: w.claim.pinned,
		Networks: prefixes(w.claim.network),
		Underlay: texts(w.underlay),
		Declared: n.opts.Token.Nodes(), Quorum: n.opts.Token.Quorum(),
		Waiting:    n.waitingLocked(refused),
		Conditions: n.conditionsLocked(),
		Uptime:     api.Duration(time.Since(n.started)),
	}
}

func texts(addrs []netip.AddrPort) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

func prefixes(net identity.Network) []prefix { return []prefix{net.V4, net.V6} }

// refused reports whether somebody with another token was there. It asks the mesh, and
// so is not to be called under mu.
func (n *Node) refused() bool {
	s := n.mesh.Stats().Admission
	return s.RefusedProof+s.RefusedByPeer > 0
}

// waitingLocked says what this member waits for. A member of a network of
// several is of no use alone; what else is missing the agents know.
func (n *Node) waitingLocked(refused bool) string {
	others := max(0, len(n.world.members)-1)
	if n.connected > 0 || n.opts.Token.Nodes() == 1 && n.opts.Kind == api.KindNode {
		return ""
	}
	if others > 0 {
		return fmt.Sprintf("a connection to one of the %d members known here", others)
	}
	where := "at the configured peers"
	switch {
	case n.opts.MDNS && len(n.opts.Peers) == 0:
		where = "on the local network"
	case n.opts.MDNS:
		where = "on the local network and at the configured peers"
	case len(n.opts.Peers) == 0:
		where = "to call here, since this one looks for nobody"
	}
	text := "another machine with the same token " + where
	if refused {
		text += "; one with another token was there"
	}
	return text
}

// Context ends when the node begins to stop.
func (n *Node) Context() context.Context { return n.ctx }

// Nodes implements api.View. A revision that this process never gave out is
// from an earlier run of the daemon: it is answered at once.
func (n *Node) Nodes(ctx context.Context, after uint64) api.NodeList {
	n.mu.Lock()
	for n.revision == after && ctx.Err() == nil && n.ctx.Err() == nil {
		changed := n.changed
		n.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		case <-n.ctx.Done():
		}
		n.mu.Lock()
	}
	list := api.NodeList{Revision: n.revision, Nodes: make([]api.Node, 0, len(n.world.members))}
	members := n.world.members
	n.mu.Unlock()

	peers, stats := n.peersByID(), n.datapath.Stats()
	now := time.Now()
	for _, m := range members {
		node := api.Node{
			ID: m.ID, Name: m.Name, Kind: m.Kind, NetworkID: m.NetworkID, Version: m.Version,
			Addresses: m.Addrs, Prefixes: m.Prefixes, Annotations: m.Annotations,
			Self: m.ID == n.ID(),
		}
		if p, ok := peers[m.ID]; ok {
			w := n.peerOf(p, stats)
			node.Connected, node.Path, node.Why, node.Endpoint, node.RTT, node.Loss, node.MTU = true, w.Path, w.Why, w.Endpoint, w.RTT, w.Loss, w.MTU
			node.Paths = w.Paths
		} else if !node.Self {
			node.LastSeen = api.Duration(now.Sub(m.Refreshed))
		}
		list.Nodes = append(list.Nodes, node)
	}
	return list
}

// peerOf says which paths to a peer there are, and what is known of the chosen one.
func (n *Node) peerOf(p mesh.PeerInfo, stats datapath.Stats) api.Peer {
	chosen := stats.Peers[p.ID].Path
	peer := api.Peer{
		ID: p.ID, Path: pathOf(p, stats), Why: chosen.Why, Endpoint: p.Remote.String(), RTT: api.Duration(p.RTT), MTU: n.mtu,
	}
	if peer.Path == datapath.KindDirect {
		peer.Endpoint = chosen.Remote.String()
		peer.RTT, peer.LastRTT, peer.Loss, peer.MTU = api.Duration(chosen.RTT), api.Duration(chosen.LastRTT), chosen.Loss, chosen.MTU
	}
	for _, info := range stats.Peers[p.ID].Paths {
		peer.Paths = append(peer.Paths, n.apiPath(p, info))
	}
	return peer
}

// apiPath is a path to a peer as the API shows it. The stream takes what the interface
// takes, and the way of the connection.
func (n *Node) apiPath(p mesh.PeerInfo, info datapath.PathInfo) api.Path {
	out := api.Path{
		Kind: info.Kind, Socket: info.Socket, Local: info.Local, Remote: info.Remote.String(), Via: info.Via, State: info.State.String(),
		Why: info.Why, RTT: api.Duration(info.RTT), Loss: info.Loss, MTU: info.MTU, Chosen: info.Chosen,
	}
	if info.Age >= 0 {
		age := api.Duration(info.Age)
		out.Heard = &age
	}
	if info.Kind == datapath.KindStream {
		out.Kind, out.Remote, out.RTT, out.MTU, out.State = p.Transport, p.Remote.String(), api.Duration(p.RTT), n.mtu, path.Alive.String()
	}
	return out
}

// pathOf is the kind of that way.
func pathOf(p mesh.PeerInfo, stats datapath.Stats) string {
	if stats.Peers[p.ID].Path.Kind == datapath.KindDirect {
		return datapath.KindDirect
	}
	return p.Transport
}

func (n *Node) peersByID() map[identity.ID]mesh.PeerInfo {
	out := map[identity.ID]mesh.PeerInfo{}
	for _, p := range n.mesh.Peers() {
		out[p.ID] = p
	}
	return out
}

// Peers implements api.View.
func (n *Node) Peers() []api.Peer {
	stats, members := n.datapath.Stats(), n.gossip.Members()
	now := time.Now()
	var out []api.Peer
	for _, p := range n.mesh.Peers() {
		peer := n.peerOf(p, stats)
		peer.Connected = api.Duration(now.Sub(p.Since))
		if m, ok := members.Get(p.ID); ok {
			peer.Name = m.Name
		}
		s := stats.Peers[p.ID]
		peer.TxPackets, peer.TxBytes, peer.RxPackets, peer.RxBytes, peer.Drops = s.TxPackets, s.TxBytes, s.RxPackets, s.RxBytes, s.Drops
		out = append(out, peer)
	}
	return out
}

// Records implements api.View.
func (n *Node) Records() []api.Record {
	var out []api.Record
	for _, m := range n.gossip.Members().List() {
		out = append(out, api.Record{
			ID: m.ID, Seq: m.Seq, Name: m.Name, Kind: m.Kind, NetworkID: m.NetworkID, Version: m.Version,
			Addresses: m.Addrs, Pinned: m.Pinned, Underlay: texts(m.Underlay), Prefixes: m.Prefixes,
			Annotations: m.Annotations, Left: m.Left,
		})
	}
	return out
}

// Cluster implements api.View: what the agent told last, else what the members' records tell.
func (n *Node) Cluster() (api.Cluster, error) {
	n.mu.Lock()
	told := n.told.Cluster
	networkID := n.world.networkID
	n.mu.Unlock()
	if told != nil {
		return *told, nil
	}
	return clusterOf(networkID, n.Nodes(context.Background(), anyRevision).Nodes)
}

// anyRevision is one that no list has, so that Nodes does not wait.
const anyRevision = 0
