package overlay

import (
	"maps"
	"slices"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/datapath"
)

// metrics is asked at every scrape. Nothing in it names a peer: the number of
// series stays small however many members come and go.
func (n *Node) metrics() []api.Metric {
	mesh, data := n.mesh.Stats(), n.datapath.Stats()
	out := n.memberMetrics(data)
	adm := mesh.Admission
	out = append(out, byLabel("admission_total", "Connections by the outcome of admission.", "outcome", map[string]uint64{
		"admitted": adm.Admitted, "refused_proof": adm.RefusedProof, "refused_timeout": adm.RefusedTimeout, "refused_limit": adm.RefusedLimit,
		"refused_by_peer": adm.RefusedByPeer, "refused_terms": adm.RefusedTerms, "left": adm.Left,
	})...)
	out = append(out, byLabel("mesh_dials_total", "Connections tried, by outcome.", "outcome", map[string]uint64{
		"admitted": mesh.Dials - min(mesh.DialsFailed, mesh.Dials), "failed": mesh.DialsFailed,
	})...)
	out = append(out,
		counter("mesh_streams_refused_total", "Streams of peers for unknown protocols or over the limit.", mesh.StreamsRefused),
		counter("mesh_peers_lost_total", "Connections closed because the peer fell silent.", mesh.Lost),
		counter("socket_kernel_drops_total", "Packets that the kernel threw away because the buffer of a UDP socket was full.", mesh.KernelDrops),
		counter("socket_quic_drops_total", "Packets of connections, not of the overlay, that were thrown away because too many came at once.", mesh.QUICDrops),
		api.Metric{Name: "socket_unsegmented", Help: "UDP sockets that send packets one by one, because the kernel or a card does not segment.",
			Value: float64(mesh.Unsegmented)},
		counter("datapath_streams_reset_total", "Streams of peers reset because of what was on them.", data.Resets),
	)
	out = append(out, byLabel("datapath_drops_total", "Packets not carried, by reason.", "reason", data.Drops)...)
	return append(out, n.gossipMetrics()...)
}

// kindOther stands for all kinds that this version does not know: a member chooses the
// word, and must not choose how many series there are.
const kindOther = "other"

func (n *Node) memberMetrics(data datapath.Stats) []api.Metric {
	kinds := map[string]uint64{api.KindNode: 0, api.KindBridge: 0, kindOther: 0}
	for _, m := range n.table.List() {
		kind := m.Kind
		if _, known := kinds[kind]; !known {
			kind = kindOther
		}
		kinds[kind]++
	}
	paths := map[string]uint64{datapath.KindDirect: 0, "quic": 0, "tcp": 0}
	for _, p := range n.mesh.Peers() {
		paths[pathOf(p, data)]++
	}
	out := byLabel("members", "Members known, this one included.", "kind", kinds)
	out = append(out, byLabel("peers", "Connected peers, by the path that packets to them take: direct, or a stream of a connection.", "path", paths)...)
	for i := range out {
		out[i].Counter = false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return append(out,
		api.Metric{Name: "declared_nodes", Help: "Nodes that the token was made for.", Value: float64(n.opts.Token.Nodes())},
		api.Metric{Name: "conditions", Help: "Things a person should know about; see /api/v1/status.", Value: float64(len(n.conditions))},
	)
}

// byLabel makes counters that differ in one label.
func byLabel(name, help, label string, values map[string]uint64) []api.Metric {
	out := make([]api.Metric, 0, len(values))
	for _, v := range slices.Sorted(maps.Keys(values)) {
		m := counter(name, help, values[v])
		m.Labels = []api.Label{{Name: label, Value: v}}
		out = append(out, m)
	}
	return out
}

func counter(name, help string, value uint64) api.Metric {
	return api.Metric{Name: name, Help: help, Counter: true, Value: float64(value)}
}

func (n *Node) gossipMetrics() []api.Metric {
	s := n.gossip.Stats()
	return append(byLabel("gossip_records_total", "Records of members on the wire, by what became of them.", "what", map[string]uint64{
		"sent": s.RecordsSent, "received": s.RecordsReceived, "refused": s.RecordsRefused,
	}), counter("gossip_digests_sent_total", "Digests sent.", s.DigestsSent))
}
