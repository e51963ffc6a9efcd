package role

import (
	"fmt"
	"strings"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/identity"
)

// birth is a node that has not started k3s in any cluster yet.
func (p *planner) birth() {
	d := p.f.Genesis.Decision
	if d == nil {
		p.undecided()
		return
	}
	if p.disputed(d) || !p.mayJoin(d) {
		return
	}
	if p.st.Phase != store.Decided || p.st.ClusterUID != d.UID || p.st.Epoch != d.Epoch {
		p.save(func(s *store.State) {
			*s = store.State{Phase: store.Decided, Role: store.Worker, ClusterUID: d.UID, Epoch: d.Epoch, Servers: d.Servers}
			if d.Names(p.f.Self) {
				s.Role = store.Server
			}
		})
	}
	if p.foreignData(d) {
		return
	}
	if !p.f.Pinned {
		p.do(Pin{})
	}
	if p.f.Image != Present {
		p.do(PrepareImage{})
		p.wait("", "getting the k3s image", "")
		return
	}
	if p.st.Role == store.Server {
		p.firstServer(d)
	} else {
		p.firstWorker(d)
	}
}

// undecided is a node that knows of no cluster.
func (p *planner) undecided() {
	if p.st.Phase == store.Decided && p.f.Genesis.Epoch > p.st.Epoch {
		// The cluster was abandoned before it was started anywhere.
		p.save(func(s *store.State) { *s = store.State{Phase: store.Promised} })
	}
	if p.f.Image != Present {
		p.do(FetchImage{})
	}
	if p.f.Genesis.Abstains {
		p.ask(health.CodeNeedsOperator, "this machine may have voted before and forgot it: what it remembers is older than what its key has done; it joins a cluster that another machine can prove, and helps to make none",
			"start a machine of the cluster that there was; if there was none, `kairos reset` (without --keep-identity) makes this a new machine, which may vote")
		return
	}
	reason := p.f.Genesis.Waiting
	if reason == "" {
		reason = "waiting for the other machines"
	}
	p.wait("", reason, "")
}

// mayJoin respects the configured role: a node that was named although it is
// excluded takes no role, and one that was not named is a worker, whatever it wanted.
func (p *planner) mayJoin(d *Decision) bool {
	named := d.Names(p.f.Self)
	switch {
	case d.Servers[0] == p.f.Self && d.Started && (p.st.Phase != store.Decided || p.st.ClusterUID != d.UID || p.f.Genesis.Abstains):
		// Only this node can have asked for leave to start, and not before it had
		// saved that it is named, and its own vote for it: it did so and forgot.
		p.ask(health.CodeNeedsOperator, fmt.Sprintf("this machine started cluster %s before; its state and the cluster's data are gone", d.UID),
			"restore /var/lib/kairos/agent and /var/lib/rancher from a backup; "+resetHint)
	case named && p.f.Wanted == agentapi.WantedWorker:
		p.wait(health.CodeRoleNotGranted, "this machine was named as the server, and is configured with role: worker",
			"set role back to \"\" or master; otherwise the others give it up after 15 minutes and choose anew")
	case named && p.f.Genesis.Abstains && !d.Started:
		p.ask(health.CodeNeedsOperator, "this machine was named as the server and must not vote, because it forgot what it voted for",
			"wait: the others give it up after 15 minutes and choose anew; `kairos reset` makes it a new machine, which may vote")
	case !named && p.f.Wanted == agentapi.WantedMaster:
		// role: master says who may be named, and the decision names nobody else
		// any more. One config.yaml for all machines may well say it everywhere.
		p.note(health.CodeRoleNotGranted, "role: master cannot be had: the cluster has its server, and this version runs one; this machine is a worker",
			"set role to worker or \"\" to silence this")
		return true
	default:
		return true
	}
	return false
}

// foreignData stops before k3s is let loose on data of something else. It
// reports whether the turn ends here.
func (p *planner) foreignData(d *Decision) bool {
	f := &p.f
	switch {
	case f.Datastore == Unknown || f.Marker.Presence == Unknown || f.K3s.Container == Unknown:
		p.wait("", "waiting to see whether k3s ran here before: its data or containerd cannot be looked at", "see `systemctl status containerd`")
	case f.Marker.Presence == Present && (f.Marker.UID != d.UID || f.Marker.Role != p.st.Role):
		p.ask(health.CodeNeedsOperator, fmt.Sprintf("the k3s data here belongs to cluster %s as %s; this machine is now to be %s of %s",
			f.Marker.UID, f.Marker.Role, p.st.Role, d.UID), resetHint)
	case f.Datastore == Present && f.Marker.Presence == Present && p.st.Role == store.Server:
		// k3s ran as this cluster's server, and the state went back in time.
		p.save(func(s *store.State) { s.Phase = store.Running })
		p.because("restoring this machine's phase from its k3s data")
	case f.Datastore == Present:
		p.ask(health.CodeNeedsOperator, "there is data of a k3s server here that does not belong to what this machine is to do", resetHint)
	case f.K3s.Container == Present && p.st.Role == store.Server:
		// Its phase was saved before it was made: the state went back in time, and the data is gone.
		p.ask(health.CodeNeedsOperator, "k3s ran here as this cluster's server, and the cluster's data is gone", resetHint)
	case f.K3s.Container == Present && (f.K3s.UID != d.UID || f.K3s.Role != p.st.Role):
		p.ask(health.CodeNeedsOperator, "a k3s container of something else is here", resetHint)
	default:
		return false
	}
	return true
}

// firstServer creates the cluster, once.
func (p *planner) firstServer(d *Decision) {
	if d.Servers[0] != p.f.Self {
		p.wait("", "more than one server: not in this version", "")
		return
	}
	if !d.Started {
		// Nothing slow may stand between winning this and starting.
		p.do(ProposeStarted{UID: d.UID, Epoch: d.Epoch})
		p.wait("", "asking the other machines for leave to start the cluster", "")
		return
	}
	if !p.f.Pinned {
		p.because("fixing the overlay address")
		return
	}
	p.mark(store.Server)
	p.save(func(s *store.State) { s.Phase = store.Starting })
	p.do(StartServer{UID: d.UID, First: true})
	p.wait("", "starting k3s for the first time", "")
}

// mark writes the marker before the phase Starting is saved. Then a Starting
// server without a marker is one whose data directory was lost.
func (p *planner) mark(r store.Role) {
	if p.f.Marker.Presence != Present {
		p.do(WriteMarker{UID: p.st.ClusterUID, Epoch: p.st.Epoch, Role: r, Servers: p.st.Servers})
	}
}

// firstWorker joins the cluster.
func (p *planner) firstWorker(d *Decision) {
	if p.f.JoinUID != d.UID {
		p.fetchJoin()
		return
	}
	if !p.f.Pinned {
		p.because("fixing the overlay address")
		return
	}
	p.mark(store.Worker)
	p.save(func(s *store.State) { s.Phase = store.Starting })
	p.startWorker()
	p.wait("", "starting k3s", "")
}

// fetchJoin gets the join information, once there is a server to ask.
func (p *planner) fetchJoin() {
	s := p.server(func(s Server) bool { return s.Connected && s.ID != p.f.Self })
	if s == nil {
		name := "the cluster's server"
		if known := p.server(func(Server) bool { return true }); known != nil {
			name = "server " + known.Name
		} else if len(p.st.Servers) > 0 {
			name = "server " + p.st.Servers[0].Short()
		}
		p.wait("", "waiting for "+name+" to come up", "")
		return
	}
	p.do(FetchJoin{From: s.ID, UID: s.UID})
	p.wait("", "asking server "+s.Name+" to let this machine join", "")
}

func (p *planner) startWorker() { p.do(StartWorker{p.st.ClusterUID}) }

// disputed reports whether the turn ends here because this machine, which is in
// no cluster yet, cannot tell which of two is meant. A certificate alone does not
// tell: whoever has the token can make keys that sign one.
func (p *planner) disputed(d *Decision) bool {
	if chosen := p.f.ClusterUID; chosen != "" {
		if d.UID != chosen {
			p.wait("", "waiting for a machine that can prove cluster "+chosen+", which cluster.uid names", "")
		}
		return d.UID != chosen
	}
	c := p.f.Conflict
	if c == nil {
		c = p.otherServer(d)
	}
	if c == nil {
		return false
	}
	p.ask(health.CodeConflict, fmt.Sprintf("two clusters claim this network_id: %s and %s; this machine joins neither by itself",
		p.naming(c.Own, d.Servers[0]), p.naming(c.Rival, c.Server)),
		"find out which one is yours (`kairos status` on its server), and set cluster.uid to it in the configuration of this machine; somebody who has the token made the other")
	return true
}

// otherServer is the conflict of d with a server that says it runs another
// cluster, whether it can prove it or not: whose proof comes first must not decide.
func (p *planner) otherServer(d *Decision) *Conflict {
	for _, s := range p.f.Servers {
		if s.UID != d.UID && s.ID != p.f.Self {
			return &Conflict{Own: d.UID, Rival: s.UID, Server: s.ID}
		}
	}
	return nil
}

// naming is a cluster's UID with who runs it: the servers that are seen, or whom
// its certificate names.
func (p *planner) naming(uid string, named identity.ID) string {
	var names []string
	for _, s := range p.f.Servers {
		if s.UID == uid {
			names = append(names, s.Name)
		}
	}
	if len(names) == 0 && !named.IsZero() {
		names = []string{named.Short()}
	}
	return fmt.Sprintf("%s (server %s)", uid, strings.Join(names, ", "))
}
