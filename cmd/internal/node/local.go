package node

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/rights"
)

// localTimeout bounds one question to a daemon of this machine that may hang.
const localTimeout = 5 * time.Second

// Patience with a daemon that has just been started, with the machine or by a
// person; tests have less.
var (
	askPoll = time.Second
	askWait = 30 * time.Second
)

// sockets are where the two daemons of a node are reached.
type sockets struct{ overlay, agent string }

// localNode is what the two daemons of this machine say of themselves.
type localNode struct {
	overlayErr error // why nothing is known of the network
	status     api.Status
	nodes      []api.Node
	records    []api.Record

	agentErr error
	agent    agentapi.Status
}

// askLocal asks both daemons. Either may be missing.
func askLocal(ctx context.Context, s sockets) localNode {
	var n localNode
	overlay, own := api.NewClient(s.overlay), api.NewClient(s.agent)
	defer overlay.CloseIdle()
	defer own.CloseIdle()
	octx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	n.overlayErr = n.askOverlay(octx, overlay)
	actx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	n.agent, n.agentErr = askAgent(actx, own)
	return n
}

// askUntil asks both daemons until enough is known, for a while where the disk says
// that they have something to do: a command that is given as soon as somebody can log
// in meets daemons that are being started. The error is the context's.
func askUntil(ctx context.Context, s sockets, disk onDisk, enough func(*localNode) bool) (localNode, error) {
	limit := time.NewTimer(askWait)
	defer limit.Stop()
	poll := time.NewTicker(askPoll)
	defer poll.Stop()
	for {
		n := askLocal(ctx, s)
		if !disk.configured || enough(&n) {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return n, ctx.Err()
		case <-limit.C:
			return n, nil
		case <-poll.C:
		}
	}
}

// known reports whether asking again would bring nothing new: a daemon answered, or
// refused to.
func known(err error) bool { return err == nil || answered(err) }

func (n *localNode) askOverlay(ctx context.Context, c *api.Client) (err error) {
	if n.status, err = c.Status(ctx); err != nil {
		return err
	}
	list, err := c.Nodes(ctx, 0, 0)
	if err != nil {
		return err
	}
	n.nodes = list.Nodes
	n.records, err = c.Records(ctx)
	return err
}

func askAgent(ctx context.Context, c *api.Client) (agentapi.Status, error) {
	var st agentapi.Status
	err := c.Call(ctx, api.Exchange{Method: http.MethodGet, Path: "/api/v1/agent", Out: &st})
	if err == nil && st.Cluster.Phase == "" {
		err = errors.New("it has just started")
	}
	return st, err
}

// connected returns the other nodes that this one is connected to. Laptops do
// not count: they come and go.
func (n *localNode) connected() []api.Node {
	var out []api.Node
	for _, o := range n.nodes {
		if o.Rights().May(rights.Return, n.status.NetworkID) && o.Connected && !o.Self {
			out = append(out, o)
		}
	}
	return out
}

// isServer reports whether a node runs the control plane of this machine's
// cluster. Where the agent does not know whom the agreement named, the node's
// own word is taken: nothing but a look at it follows.
func (n *localNode) isServer(o api.Node) bool {
	c := n.agent.Cluster
	if len(c.Servers) > 0 {
		return slices.Contains(c.Servers, o.ID)
	}
	claim, _ := o.Rights().Claim(c.NetworkID)
	return c.UID != "" && claim.UID == c.UID && claim.Serves()
}

// ipv4 returns a node's overlay IPv4; invalid when it has none.
func ipv4(o api.Node) netip.Addr {
	i := slices.IndexFunc(o.Addresses, netip.Addr.Is4)
	if i < 0 {
		return netip.Addr{}
	}
	return o.Addresses[i]
}
