package agent

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/genesis"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/role"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/rights"
)

// appliedNet is the pod network that this process has set up. An agent that
// starts sets it up once more, because a reboot has taken the rules away.
type appliedNet struct {
	cidr netip.Prefix
	addr netip.Addr
	mtu  int
	at   time.Time // when it was set up last

	ended int // pods that had addresses of another range then
}

// observe collects the facts of this turn.
func (a *agent) observe(ctx context.Context) role.Facts {
	w := a.world.get()
	f := role.Facts{
		NetworkID:      a.cfg.NetworkID,
		Wanted:         a.cfg.Role,
		ClusterEnabled: a.cfg.Cluster.Enabled,
		ClusterUID:     a.cfg.Cluster.UID,
		Leaving:        a.leave.Asked(),
		Store:          a.storeStatus,
		StateProblem:   a.storeProblem,
		StateNewer:     a.storeNewer,
		State:          a.store.State(),
		Self:           w.status.ID,
		OverlayUp:      w.up && w.address().IsValid(),
		Pinned:         w.status.Pinned,
		Servers:        servers(w, a.cfg.NetworkID),
	}
	f.Published = w.published()
	a.observeDisk(ctx, &f)
	if !f.ClusterEnabled || f.Leaving {
		a.observeRetired(ctx, &f, w)
		return f
	}
	if a.storeStatus != role.StoreUnusable {
		a.openVoting(f.Self, abstention(f))
		a.pinVoting(f)
	}
	f.Images, _ = a.seeder.State() // what is wrong with them is told, and decides nothing
	a.observeGenesis(&f)
	a.observeK3s(ctx, &f, w)
	a.watch, f.K3s = a.watch.Look(time.Since(a.started), a.report.pid, f)
	return f
}

// observeRetired looks for what is left of Kubernetes where there shall be none.
func (a *agent) observeRetired(ctx context.Context, f *role.Facts, w snapshot) {
	st, err := a.status(ctx)
	f.K3s.Container = role.PresenceOf(st.Exists, err)
	f.K3s.Running = st.Running
	if self, ok := w.self(); ok && len(self.Prefixes) > 0 {
		f.AppliedPodCIDR = self.Prefixes[0]
	}
}

// pinVoting tells the agreement which cluster is this node's own: the one that it
// has joined, which nothing that is heard later can change, else the one that a
// person chose.
func (a *agent) pinVoting(f role.Facts) {
	d, _ := a.voting.get()
	if d == nil {
		return
	}
	own := f.ClusterUID
	if f.State.Phase.AtLeast(store.Starting) {
		own = f.State.ClusterUID
	}
	var uid genesis.UID
	var err error
	if own != "" {
		uid, err = genesis.ParseUID(own)
	}
	if err == nil {
		err = d.Pin(uid)
	}
	if err != nil {
		a.report.logFailure("pin the cluster", err)
	}
}

// abstention is the epoch up to which this node must not vote: it took part in
// it, as k3s' own directory says, but its votes are lost.
func abstention(f role.Facts) uint64 {
	if f.Store == role.StoreEmpty && f.Marker.Presence == role.Present {
		return f.Marker.Epoch
	}
	return 0
}

func (a *agent) observeDisk(ctx context.Context, f *role.Facts) {
	m, found, err := a.opt.Files.ReadMarker()
	f.Marker = role.Marker{Presence: role.PresenceOf(found, err), UID: m.UID, Epoch: m.Epoch, Role: m.Role, Servers: m.Servers}
	var ferr error
	if f.State.Role == store.Server {
		_, ferr = a.founder()
		f.Founder = role.PresenceOf(ferr == nil, notMissing(ferr))
	}
	there, derr := a.opt.Files.HasDatastore()
	v, verr := a.opt.Files.Versions()
	f.Datastore = role.PresenceOf(there || v.Restoring, errors.Join(derr, verr))
	f.Versions = role.Versions{Wanted: a.wantedK3s(ctx), Ran: v.Ran, Kept: v.Kept, Restoring: v.Restoring, Trial: a.opt.Trial()}
	join, jerr := a.opt.Files.ReadJoin()
	f.JoinUID, f.JoinCAHash = join.UID, join.CA.Hash()
	if join.Server.IsValid() {
		f.JoinEndpoint = netip.AddrPortFrom(join.Server, k3s.APIPort).String()
	}
	a.report.diskProblem = errors.Join(err, notMissing(ferr), derr, verr, jerr)
}

// wantedK3s is what this machine shall run; zero while that cannot be found out.
func (a *agent) wantedK3s(ctx context.Context) agentapi.K3s {
	digest, err := a.puller.Wanted(ctx)
	if err != nil {
		return agentapi.K3s{} // told by whoever needs it
	}
	return agentapi.K3sOf(a.puller.Image(), digest)
}

// notMissing is an error other than that a file is not there.
func notMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (a *agent) observeGenesis(f *role.Facts) {
	d, problem := a.voting.get()
	if d == nil {
		f.Genesis.Waiting = errNotOpen.Error()
		if !errors.Is(problem, errNotOpen) {
			f.Genesis.Problem, f.Genesis.Foreign = problem.Error(), errors.Is(problem, genesis.ErrOtherNetwork)
		}
		return
	}
	s := d.Status()
	f.Genesis.Waiting, f.Genesis.Epoch, f.Genesis.Abstains = s.Waiting, s.Epoch, s.Abstains
	if s.Decision != nil && s.Decision.Result() != genesis.Abandoned {
		f.Genesis.Decision = &role.Decision{
			UID: s.Decision.UID().String(), Epoch: s.Decision.Epoch(),
			Servers: slices.Clone(s.Decision.Servers()), Started: s.Decision.Result() == genesis.Started,
		}
	}
	if s.Conflict != nil {
		f.Conflict = &role.Conflict{Own: s.Conflict.Own.String(), Rival: s.Conflict.Rival.String(), Server: s.Rival.Servers()[0]}
	}
}

func (a *agent) observeK3s(ctx context.Context, f *role.Facts, w snapshot) {
	st, err := a.status(ctx)
	f.K3s.Container = role.PresenceOf(st.Exists, err)
	f.K3s.Running, f.K3s.UID, f.K3s.Role = st.Running, st.UID, storeRole(st.Role)
	a.report.exited, a.report.pid, a.report.specProblem = k3s.Status{}, 0, nil
	if st.Running {
		a.report.pid = st.PID
	}
	if st.Exists && !st.Running {
		a.report.exited = st
	}
	if st.Exists {
		spec, err := a.spec(ctx, st.Role, st.UID)
		f.K3s.Stale = err == nil && spec.Hash() != st.SpecHash
		a.report.specProblem = err
	}
	if f.K3s.Running && !f.K3s.Stale {
		f.Image = role.Present
	} else {
		f.Image = a.observeImage(ctx)
	}
	if f.K3s.Running {
		a.probe(ctx, f, w, st.Role)
		f.K3s.Version = a.kubernetes
		if st.Role == k3s.Server { // what others compare with the names of their images
			f.K3s.Version = cmp.Or(f.Versions.Ran.Kubernetes, a.kubernetes)
		}
	}
	f.AppliedPodCIDR = a.stillApplied(w)
	a.addSelf(f, w)
}

// status asks containerd, which may hang.
func (a *agent) status(ctx context.Context) (k3s.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, a.patience)
	defer cancel()
	return a.runtime.Status(ctx)
}

func (a *agent) observeImage(ctx context.Context) role.Presence {
	ctx, cancel := context.WithTimeout(ctx, a.patience)
	defer cancel()
	has, err := a.puller.Has(ctx)
	return role.PresenceOf(has, err)
}

// addSelf adds this node to the servers as soon as its k3s has a CA to be known by.
func (a *agent) addSelf(f *role.Facts, w snapshot) {
	f.Servers = slices.DeleteFunc(f.Servers, func(s role.Server) bool { return s.ID == f.Self })
	if f.State.Role != store.Server || !f.K3s.Running || f.K3s.Role != store.Server || f.K3s.UID != f.State.ClusterUID {
		return
	}
	ca, err := a.opt.Files.Authority()
	if err != nil {
		return // k3s has not made it yet
	}
	f.Servers = append(f.Servers, role.Server{
		ID: f.Self, Name: w.status.Name, UID: f.State.ClusterUID, CAHash: ca.Hash(), Connected: true,
		Endpoint: netip.AddrPortFrom(w.address(), k3s.APIPort).String(),
	})
}

// probe asks k3s itself. A server that cannot be reached leaves the facts as they are.
func (a *agent) probe(ctx context.Context, f *role.Facts, w snapshot, r k3s.Role) {
	server := w.address()
	if r == k3s.Agent {
		join, err := a.opt.Files.ReadJoin()
		if err != nil {
			return
		}
		server = join.Server
	}
	p := a.prober(k3s.Probe{Role: r, Server: server, Files: a.opt.Files})
	err := p.Ready(ctx)
	f.K3s.Ready = err == nil
	if !f.K3s.Ready {
		return
	}
	a.restarts.Worked(time.Now())
	n, err := p.Node(ctx, a.nodeName())
	a.report.nodeReady = err == nil && n.Ready
	switch {
	case err == nil:
		f.K3s.Node, f.PodCIDR = role.Present, n.PodCIDR
		a.kubernetes = n.Version
	case errors.Is(err, k3s.ErrNoNode):
		f.K3s.Node = role.Absent
	}
}

// stillApplied is the pod range that is set up, as long as the overlay carries it too.
func (a *agent) stillApplied(w snapshot) netip.Prefix {
	self, ok := w.self()
	switch {
	case !a.applied.cidr.IsValid() || a.applied.addr != w.address() || a.applied.mtu != w.status.MTU:
		return netip.Prefix{}
	case ok && w.up && !slices.Contains(self.Prefixes, a.applied.cidr):
		return netip.Prefix{}
	}
	return a.applied.cidr
}

// servers are the control planes that members of this network_id publish.
func servers(w snapshot, networkID string) []role.Server {
	var out []role.Server
	for _, n := range w.nodes {
		may := n.Rights()
		claim, _ := may.Claim(networkID)
		if !may.May(rights.Serve, networkID) || !claim.Serves() {
			continue
		}
		out = append(out, role.Server{
			ID: n.ID, Name: n.Name, UID: claim.UID, Endpoint: claim.Server,
			CAHash: claim.CA, Connected: n.Connected || n.Self, Kubernetes: claim.Kubernetes,
		})
	}
	return out
}

func storeRole(r k3s.Role) store.Role {
	switch r {
	case k3s.Server:
		return store.Server
	case k3s.Agent:
		return store.Worker
	default:
		return store.NoRole
	}
}
