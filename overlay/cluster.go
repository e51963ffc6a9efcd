package overlay

import (
	"net/http"
	"strconv"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/rights"
)

// clusterOf tells what the members say about the cluster
// networkID. It serves where no agent tells more: on a bridge, and on a node
// whose agent does not run (yet).
func clusterOf(networkID string, nodes []api.Node) (api.Cluster, error) {
	c := api.Cluster{NetworkID: networkID, Phase: "forming"}
	members := 0
	for _, n := range nodes {
		claim, ok := n.Rights().Claim(networkID)
		if !ok {
			continue
		}
		members++
		if c.Waiting == "" {
			c.Waiting = claim.Waiting
		}
		if claim.Serves() && claim.Epoch > 0 {
			addServer(&c, n.ID, claim)
		}
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
func addServer(c *api.Cluster, id identity.ID, claim rights.Claim) {
	if c.UID != "" && claim.UID != c.UID {
		c.Conflict = "two clusters have this network_id: " + c.UID + " and " + claim.UID
		return
	}
	c.Servers = append(c.Servers, id)
	c.UID, c.Phase, c.Epoch = claim.UID, "running", max(c.Epoch, claim.Epoch)
	if c.Endpoint == "" {
		c.Endpoint = "https://" + claim.Server
	}
}
