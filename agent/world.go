package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/broadcast"
	"github.com/kairos-io/kairos/agent/genesis"
	"github.com/kairos-io/kairos/agent/seed"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/rights"
)

// Pace of watching the overlay.
const (
	watchWait  = 30 * time.Second // one long poll
	retryPause = time.Second      // while the overlay does not answer
	askTimeout = 5 * time.Second
)

// snapshot is the mesh at one moment. It is not modified once made.
type snapshot struct {
	up     bool // the overlay answered the last question
	status api.Status
	nodes  []api.Node
}

// self returns this machine's own entry.
func (s snapshot) self() (api.Node, bool) {
	for _, n := range s.nodes {
		if n.Self {
			return n, true
		}
	}
	return api.Node{}, false
}

// published is what the overlay carries for this machine's agent.
func (s snapshot) published() map[string]string {
	self, _ := s.self()
	return self.Annotations
}

// address returns this machine's overlay IPv4.
func (s snapshot) address() netip.Addr {
	for _, a := range s.status.Addresses {
		if a.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// world follows the overlay. It is safe for concurrent use.
type world struct {
	overlay   *api.Client
	networkID string
	log       *slog.Logger

	broadcast.Event // when the mesh has changed

	mu  sync.Mutex
	now snapshot
}

func newWorld(overlay *api.Client, networkID string, log *slog.Logger) *world {
	return &world{overlay: overlay, networkID: networkID, log: log}
}

func (w *world) get() snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// set takes over what the overlay said. Whoever waits is woken by news only: a long
// poll also ends because its time is over.
func (w *world) set(s snapshot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	same := reflect.DeepEqual(w.now, s)
	w.now = s
	if !same {
		w.Notify()
	}
}

// watch keeps the snapshot fresh until ctx ends.
func (w *world) watch(ctx context.Context) error {
	var revision uint64
	for ctx.Err() == nil {
		s, rev, err := w.ask(ctx, revision)
		if err == nil {
			revision = rev
			w.set(s)
			continue
		}
		if ctx.Err() != nil {
			break
		}
		revision = 0
		if old := w.get(); old.up {
			w.log.Warn("the overlay does not answer", "err", err)
			old.up = false
			w.set(old) // what was known stays: k3s goes on by it
		}
		pause(ctx, retryPause)
	}
	return nil
}

// ask waits for the next revision and returns all there is to know.
func (w *world) ask(ctx context.Context, after uint64) (snapshot, uint64, error) {
	wait := watchWait
	if after == 0 {
		wait = 0
	}
	nctx, cancel := context.WithTimeout(ctx, wait+askTimeout)
	defer cancel()
	list, err := w.overlay.Nodes(nctx, after, wait)
	if err != nil {
		return snapshot{}, 0, err
	}
	sctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	status, err := w.overlay.Status(sctx)
	if err != nil {
		return snapshot{}, 0, err
	}
	return snapshot{up: true, status: status, nodes: list.Nodes}, list.Revision, nil
}

// Members implements genesis.View: the nodes that belong to this network_id and
// are there for its cluster. One whose cluster is disabled answers nobody.
func (w *world) Members() []genesis.Member {
	var out []genesis.Member
	for _, n := range w.get().nodes {
		may := n.Rights()
		claim, _ := may.Claim(w.networkID)
		if !may.May(rights.Vote, w.networkID) {
			continue
		}
		out = append(out, genesis.Member{
			ID: n.ID, Connected: n.Connected || n.Self,
			Wanted: agentapi.Wanted(claim.Wanted), ClusterUID: claim.UID, Server: claim.Serves(), Epoch: claim.Epoch, Abstains: claim.Abstains,
		})
	}
	return out
}

// seedMembers are the machines that images can be asked of.
func (a *agent) seedMembers() (self identity.ID, others []seed.Member) {
	w := a.world.get()
	servers := a.store.State().Servers
	for _, n := range w.nodes {
		may := n.Rights()
		claim, _ := may.Claim(a.cfg.NetworkID)
		if n.Self || !n.Connected || !may.May(rights.Seed, a.cfg.NetworkID) {
			continue
		}
		others = append(others, seed.Member{ID: n.ID, Name: n.Name, Server: slices.Contains(servers, n.ID),
			RTT: time.Duration(n.RTT), Tag: claim.Images})
	}
	return w.status.ID, others
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
