package overlay

import (
	"net/http"
	"strconv"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// clusterOf tells what the members' annotations say about the cluster
// networkID. It serves where no agent tells more: on a bridge, and on a node
// whose agent does not run (yet).
func clusterOf(networkID string, nodes []api.Node) (api.Cluster, error) {
	c := api.Cluster{NetworkID: networkID, Phase: "forming"}
	members := 0
	for _, n := range nodes {
		if n.NetworkID != networkID || n.Kind != api.KindNode {
			continue
		}
		members++
		if c.Waiting == "" {
			c.Waiting = n.Annotations[api.NoteWaiting]
		}
		if n.Annotations[api.NoteRole] != "server" || n.Annotations[api.NoteServer] == "" {
			continue
		}
		addServer(&c, n.ID, n.Annotations)
	}
	switch {
	case members == 0:
		return api.Cluster{}, &api.Error{
			Message: "no node of network_id " + strconv.Quote(networkID) + " is known here",
			Hint:    "check --network-id, and that the machines run with the same token",
			Status:  http.StatusNotFound,
		}
	case len(c.Servers) == 0:
		reason := c.Waiting
		if reason == "" {
			reason = "no server has announced itself"
		}
		return api.Cluster{}, &api.Error{
			Message: "there is no cluster " + strconv.Quote(networkID) + " yet: " + reason,
			Hint:    "see `kairos status`",
			Status:  http.StatusNotFound,
		}
	}
	return c, nil
}

// addServer adds a server. Two servers with different clusters are a conflict
// that a person must see; the one found first, which is the lower ID, is shown.
// A server whose words make no sense does not count.
func addServer(c *api.Cluster, id identity.ID, notes map[string]string) {
	uid := notes[api.NoteClusterUID]
	epoch, err := strconv.ParseUint(notes[api.NoteEpoch], 10, 64)
	if uid == "" || err != nil {
		return
	}
	if c.UID != "" && uid != c.UID {
		c.Conflict = "two clusters have this network_id: " + c.UID + " and " + uid
		return
	}
	c.Servers = append(c.Servers, id)
	c.UID, c.Phase, c.Epoch = uid, "running", max(c.Epoch, epoch)
	if c.Endpoint == "" {
		c.Endpoint = "https://" + notes[api.NoteServer]
	}
}
