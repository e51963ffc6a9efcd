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
)

// What is said of a way is measured on that way.
func TestPeerOf(t *testing.T) {
	n, id := &Node{mtu: 1420}, identity.ID{7}
	seen := mesh.PeerInfo{ID: id, Transport: "quic", Remote: netip.MustParseAddrPort("192.0.2.7:4171"), RTT: 9 * time.Millisecond}
	tests := map[string]struct {
		path datapath.PathInfo
		want api.Peer
	}{
		"direct": {
			datapath.PathInfo{Kind: datapath.KindDirect, Why: "it answers", MTU: 1340, RTT: 5 * time.Millisecond, LastRTT: 4 * time.Millisecond, Loss: 3},
			api.Peer{Path: "direct", Why: "it answers", RTT: api.Duration(5 * time.Millisecond), LastRTT: api.Duration(4 * time.Millisecond), Loss: 3, MTU: 1340},
		},
		"a stream takes what the interface takes": {
			datapath.PathInfo{Kind: datapath.KindStream, Why: "no keys", MTU: 65535},
			api.Peer{Path: "quic", Why: "no keys", RTT: api.Duration(9 * time.Millisecond), MTU: 1420},
		},
		"not known to the data path yet": {
			datapath.PathInfo{},
			api.Peer{Path: "quic", RTT: api.Duration(9 * time.Millisecond), MTU: 1420},
		},
	}
	for name, tc := range tests {
		tc.want.ID, tc.want.Endpoint = id, seen.Remote.String()
		got := n.peerOf(seen, datapath.Stats{Peers: map[identity.ID]datapath.PeerStats{id: {Path: tc.path}}})
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}
