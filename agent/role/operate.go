package role

import (
	"fmt"
	"net/netip"
	"slices"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/store"
)

// operate is a node that belongs to a cluster and may have run k3s. Nothing
// here depends on who else is reachable.
func (p *planner) operate() {
	p.tellConflict()
	if !p.f.Pinned {
		p.do(Pin{})
	}
	p.run()
	if p.changed != nil {
		// Last, and not waited for by what runs: a server that does not answer keeps
		// nothing else from being done.
		p.do(FetchJoin{From: p.changed.ID, UID: p.changed.UID})
	}
}

// run keeps k3s running, and what depends on it.
func (p *planner) run() {
	var ok bool
	if p.st.Role == store.Server {
		ok = p.control()
	} else {
		ok = p.worker()
	}
	if !ok {
		return
	}
	p.tellRestarts()
	if p.f.K3s.Ready && p.st.Phase == store.Starting {
		p.save(func(s *store.State) { s.Phase = store.Running })
	}
	if v := &p.f.Versions; p.st.Role == store.Server && v.Kept != nil && !v.Trial && !p.f.K3s.Stale {
		p.do(DropKept{})
	}
	if p.st.Role == store.Server && p.f.Founder == Absent {
		p.do(Found{p.st.ClusterUID})
	}
	p.register()
	p.podNetwork()
}

// tellConflict tells of another cluster. This node stays in its own: user data is
// never left or deleted by itself, and no advice to do so follows from a
// certificate that anybody with the token can make.
func (p *planner) tellConflict() {
	own, chosen := p.st.ClusterUID, p.f.ClusterUID
	if chosen != "" && chosen != own {
		p.note(health.CodeConflict, fmt.Sprintf("cluster.uid names %s, and this machine runs in cluster %s", chosen, own),
			"set cluster.uid to "+own+"; a machine that is to change its cluster has to leave it first: `kairos reset`")
		return
	}
	c := p.f.Conflict
	if d := p.f.Genesis.Decision; c == nil && d != nil && d.UID != own {
		c = &Conflict{Own: own, Rival: d.UID, Server: d.Servers[0]}
	}
	if c == nil || c.Rival == own {
		return
	}
	rivalSeen := slices.ContainsFunc(p.f.Servers, func(s Server) bool { return s.UID == c.Rival })
	if chosen == own && !rivalSeen {
		return // a person has chosen, and nobody contradicts at present
	}
	p.note(health.CodeConflict, "another cluster claims this network_id: "+p.naming(c.Rival, c.Server),
		"this machine stays with "+own+", and nothing on it has to be deleted; find out who made the other: another site with this token, or somebody who must not have it")
}

// control runs the only server. It reports whether k3s is as it should be.
func (p *planner) control() bool {
	f := &p.f
	if f.Wanted == agentapi.WantedWorker {
		p.note(health.CodeRoleNotGranted, "role: worker is configured, and this machine is the cluster's server: its disk is the cluster", "set role to master or \"\"")
	}
	if !p.ownData(store.Server) {
		return false
	}
	first := false
	switch {
	case f.Datastore == Present:
	case f.Datastore == Unknown && !f.K3s.Running:
		p.wait("", "waiting to see the cluster's data: its directory cannot be read", "")
		return false
	case f.Datastore == Unknown:
	case p.st.Phase == store.Starting && f.Marker.Presence == Present:
		// The marker proves that the directory is the one of the first start, so
		// k3s never came to writing its data: the first start goes on.
		first = true
	default:
		p.ask(health.CodeNeedsOperator, fmt.Sprintf("this machine is the server of cluster %s and the cluster's data is gone", p.st.ClusterUID),
			"restore /var/lib/rancher from a backup: starting now would make another, empty cluster; "+resetHint)
		return false
	}
	if f.Marker.Presence == Absent && f.Datastore == Present {
		p.mark(store.Server)
	}
	switch toStart := p.toStart(); {
	case toStart && !p.fits(p.dataFits):
		if !f.K3s.Running {
			return false
		}
	case toStart:
		if !p.imageReady() || !p.handOver(first) {
			return false
		}
		p.earlyNetwork()
		p.do(StartServer{UID: p.st.ClusterUID, First: first})
	}
	if !f.K3s.Ready {
		p.awaitK3s("waiting for the Kubernetes API of this machine to answer")
		return false
	}
	return true
}

// worker runs an agent. It reports whether k3s is as it should be.
func (p *planner) worker() bool {
	f := &p.f
	if f.Datastore == Present {
		p.ask(health.CodeNeedsOperator, "this machine is a worker and holds the data of a k3s server", resetHint)
		return false
	}
	if !p.ownData(store.Worker) {
		return false
	}
	if p.server(func(s Server) bool { return s.Connected }) == nil {
		const reason = "the cluster's server to be reachable again; pods here keep running"
		p.note(health.CodeServerLost, reason, "see to the server and to the network between")
		p.because(reason)
	}
	if f.Marker.Presence == Absent {
		p.mark(store.Worker)
	}
	if f.JoinUID != p.st.ClusterUID {
		p.fetchJoin()
		return false
	}
	if p.changed = p.changedServer(); p.changed != nil && !p.caFits(*p.changed) && !f.K3s.Running {
		p.wait("", "server "+p.changed.Name+" shows another certificate authority: asking for what vouches for it", "")
		return false
	}
	switch toStart := p.toStart(); {
	case toStart && !p.fits(p.serversFit):
		if !f.K3s.Running {
			return false
		}
	case toStart:
		if !p.imageReady() {
			return false
		}
		p.earlyNetwork()
		p.startWorker()
	}
	if !f.K3s.Ready {
		p.awaitK3s("waiting for k3s on this machine to join the cluster")
		return false
	}
	return true
}

// changedServer returns a server to ask for join information anew; nil when there is
// nothing to do. Either none is at the address that this worker joined at any more
// (overlay.cidr was changed, say), or its CA was rotated: whether the new one may be
// trusted is for who saves it to say.
func (p *planner) changedServer() *Server {
	here := func(s Server) bool { return s.Connected && s.ID != p.f.Self }
	if s := p.server(func(s Server) bool { return here(s) && !p.caFits(s) }); s != nil {
		return s
	}
	at := func(s Server) bool { return s.Endpoint == p.f.JoinEndpoint }
	if p.f.JoinEndpoint == "" || p.server(at) != nil {
		return nil
	}
	return p.server(here)
}

// caFits reports whether a server's CA, as far as it shows one, is the one that this
// worker's k3s trusts.
func (p *planner) caFits(s Server) bool { return s.CAHash == "" || s.CAHash == p.f.JoinCAHash }

// ownData makes sure that data directory and container are this cluster's.
func (p *planner) ownData(r store.Role) bool {
	f := &p.f
	switch {
	case f.Marker.Presence == Present && (f.Marker.UID != p.st.ClusterUID || f.Marker.Role != r):
		p.ask(health.CodeNeedsOperator, fmt.Sprintf("the k3s data here belongs to cluster %s as %s; this machine is %s of %s",
			f.Marker.UID, f.Marker.Role, r, p.st.ClusterUID), resetHint)
	case f.K3s.Container == Present && (f.K3s.UID != p.st.ClusterUID || f.K3s.Role != r):
		p.do(Stop{"the k3s container is of another cluster or role"})
		p.because("replacing a k3s container of another cluster or role")
	case f.K3s.Container == Unknown:
		p.wait("", "waiting for containerd", "see `systemctl status containerd`")
	default:
		return true
	}
	return false
}

// toStart reports whether k3s is to be started, or to be replaced by another one.
func (p *planner) toStart() bool { return !p.f.K3s.Running || p.f.K3s.Stale }

// imageReady asks for the image where a container must be made.
func (p *planner) imageReady() bool {
	if p.f.Image == Present {
		return true
	}
	p.do(PrepareImage{})
	p.wait("", "getting the k3s image", "")
	return false
}

// earlyNetwork gives restarted pods their network before Kubernetes answers.
func (p *planner) earlyNetwork() {
	if p.st.PodCIDR.IsValid() && p.f.AppliedPodCIDR != p.st.PodCIDR && !p.f.PodCIDR.IsValid() {
		p.do(ApplyNetwork{p.st.PodCIDR})
	}
}

// podNetwork follows the range that Kubernetes gives this node.
func (p *planner) podNetwork() {
	want := p.f.PodCIDR
	if want.IsValid() && want != p.st.PodCIDR {
		p.save(func(s *store.State) { s.PodCIDR = want })
	}
	if !want.IsValid() {
		want = p.st.PodCIDR
	}
	switch {
	case want == (netip.Prefix{}) && p.f.K3s.Node == Absent: // told already
	case want == (netip.Prefix{}):
		p.wait("", "waiting for Kubernetes to give this machine a pod range", "")
	case p.f.AppliedPodCIDR != want:
		p.do(ApplyNetwork{want})
	}
}
