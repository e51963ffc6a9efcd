package overlay

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/datapath"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/mesh"
	"github.com/kairos-io/kairos/overlay/path"
)

// What is said of a path is measured on that path.
func TestPeerOf(t *testing.T) {
	n, id := &Node{mtu: 1420}, identity.ID{7}
	seen := mesh.PeerInfo{ID: id, Transport: "quic", Remote: netip.MustParseAddrPort("192.0.2.7:4171"), RTT: 9 * time.Millisecond}
	at := path.Path{Socket: 3, Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddrPort("192.0.2.8:4171")}
	direct := datapath.PathInfo{Kind: datapath.KindDirect, Age: 2 * time.Second, Info: path.Info{
		Path: at, State: path.Alive, Chosen: true, Why: "it answers", MTU: 1340, RTT: 5 * time.Millisecond, LastRTT: 4 * time.Millisecond, Loss: 3,
	}}
	stream := datapath.PathInfo{Kind: datapath.KindStream, Age: -1, Info: path.Info{Why: "no keys", MTU: 65535}}
	ago := api.Duration(2 * time.Second)
	tests := map[string]struct {
		paths []datapath.PathInfo
		want  api.Peer
	}{
		"direct": {
			[]datapath.PathInfo{direct, stream},
			api.Peer{Path: "direct", Why: "it answers", Endpoint: "192.0.2.8:4171", RTT: api.Duration(5 * time.Millisecond), LastRTT: api.Duration(4 * time.Millisecond), Loss: 3, MTU: 1340,
				Paths: []api.Path{
					{Kind: "direct", Socket: 3, Local: at.Local, Remote: "192.0.2.8:4171", State: "alive", Why: "it answers", RTT: api.Duration(5 * time.Millisecond), Loss: 3, MTU: 1340, Heard: &ago, Chosen: true},
					{Kind: "quic", Remote: "192.0.2.7:4171", State: "alive", Why: "no keys", RTT: api.Duration(9 * time.Millisecond), MTU: 1420},
				}},
		},
		"a stream takes what the interface takes": {
			[]datapath.PathInfo{stream},
			api.Peer{Path: "quic", Why: "no keys", Endpoint: seen.Remote.String(), RTT: api.Duration(9 * time.Millisecond), MTU: 1420, Paths: []api.Path{
				{Kind: "quic", Remote: "192.0.2.7:4171", State: "alive", Why: "no keys", RTT: api.Duration(9 * time.Millisecond), MTU: 1420},
			}},
		},
		"not known to the data path yet": {
			[]datapath.PathInfo{{}},
			api.Peer{Path: "quic", Endpoint: seen.Remote.String(), RTT: api.Duration(9 * time.Millisecond), MTU: 1420},
		},
	}
	for name, tc := range tests {
		tc.want.ID = id
		stats := datapath.PeerStats{Path: tc.paths[0]}
		if tc.paths[0].Kind != "" {
			stats.Paths = tc.paths
		}
		got := n.peerOf(seen, datapath.Stats{Peers: map[identity.ID]datapath.PeerStats{id: stats}})
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}
