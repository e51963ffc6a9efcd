package role

import (
	"fmt"
	"maps"
	"slices"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/rights"
)

// resetHint ends the messages after which a person may want to start afresh.
// The node's key goes too: a node that forgot its votes must come back as another.
const resetHint = "if what this machine ran is not needed any more, stop kairos-agent and kairos-overlay, move /var/lib/kairos and /var/lib/rancher away and start them again"

// logHint is where k3s says itself what it is about.
const logHint = "see /var/log/kairos/k3s.log"

// planner collects the actions of one turn.
type planner struct {
	f       Facts
	st      store.State // f.State with the saves planned so far
	actions []Action
	waiting string  // the first reason why nothing more is done
	votes   bool    // RunGenesis is planned
	changed *Server // to be asked for join information anew; nil: nobody
}

// Plan says what to do next. A Publish comes first where the annotations have
// changed, so that the others see why this node waits even if a step fails.
func Plan(f Facts) []Action {
	p := &planner{f: f, st: f.State.Clone()}
	p.decide()
	want := p.annotations()
	if f.OverlayUp && !maps.Equal(want, f.Published) {
		p.actions = append([]Action{Publish{want}}, p.actions...)
	}
	return p.actions
}

func (p *planner) do(a ...Action) { p.actions = append(p.actions, a...) }

func (p *planner) save(change func(*store.State)) {
	next := p.st.Clone()
	change(&next)
	next.NetworkID = p.f.NetworkID
	p.st = next
	p.do(Save{next})
}

func (p *planner) wait(code, reason, hint string) {
	if code == "" {
		code = health.CodeWaiting
	}
	p.do(Wait{code, reason, hint})
	p.because(reason)
}

func (p *planner) ask(code, reason, hint string) {
	p.do(Ask{code, reason, hint})
	p.because(reason)
}

func (p *planner) note(code, reason, hint string) { p.do(Note{Code: code, Reason: reason, Hint: hint}) }

func (p *planner) because(reason string) {
	if p.waiting == "" {
		p.waiting = reason
	}
}

// decide is the policy, from what forbids everything to what is done every day.
func (p *planner) decide() {
	f := &p.f
	switch {
	case f.Leaving: // also with a state that cannot be used: leaving is what a person does about it
		p.retire("this machine leaves its cluster")
	case !f.ClusterEnabled:
		p.retire("cluster.enabled is false")
	case f.Store == StoreUnusable && f.StateNewer:
		p.ask(health.CodeStateUnusable, "the agent's state cannot be used: "+f.StateProblem,
			"start the later version again, with `kairos upgrade` or `kairos rollback`; the state was left as it is")
	case f.Store == StoreUnusable:
		// Not empty: this node may have voted, or be the server. What runs goes on.
		p.ask(health.CodeStateUnusable, "the agent's state cannot be used: "+f.StateProblem,
			"restore the file from a backup, or repair the disk; "+resetHint)
	case p.st.Phase != store.Idle && p.st.NetworkID != "" && p.st.NetworkID != f.NetworkID:
		p.ask(health.CodeNetworkChanged, fmt.Sprintf("this machine took part in network_id %q and is now configured for %q", p.st.NetworkID, f.NetworkID),
			"set network_id back; "+resetHint)
	case f.Genesis.Problem != "" && !p.st.Phase.AtLeast(store.Starting):
		p.ask(p.votesUnusable())
	case !p.st.Phase.AtLeast(store.Decided) && p.recover():
	case !f.OverlayUp:
		p.wait(health.CodeOverlayDown, "waiting for the overlay network", "see `systemctl status kairos-overlay`")
	case f.Genesis.Problem != "":
		// What runs needs no votes. The others get no help from this node's.
		p.note(p.votesUnusable())
		p.operate()
	case p.forgot():
		p.do(Abstain{agentapi.EveryEpoch})
		p.because("making sure that this machine does not vote twice")
	default:
		p.votes = true
		p.do(RunGenesis{})
		if p.st.Phase.AtLeast(store.Starting) {
			p.operate()
		} else {
			p.birth()
		}
	}
}

// forgot reports whether this machine knows less than it did: its address is fixed
// for good only after a decision, and it remembers neither one nor that it was
// abandoned. So its state is gone or of an earlier day, while what the overlay keeps
// of the same key is not. It may have voted since.
func (p *planner) forgot() bool {
	g := &p.f.Genesis
	return p.f.Pinned && !p.st.Phase.AtLeast(store.Decided) && g.Decision == nil && g.Epoch == 1 && !g.Abstains
}

// votesUnusable says that this machine cannot take part in the agreement, and what
// a person can do. It goes on without only where it has a cluster already.
func (p *planner) votesUnusable() (code, reason, hint string) {
	g := &p.f.Genesis
	if g.Foreign {
		return health.CodeNetworkChanged, "this machine voted under another network_token: " + g.Problem,
			"set network_token and network_id back to what they were; " + resetHint
	}
	return health.CodeStateUnusable, "this machine's votes cannot be used: " + g.Problem,
		"see to the disk, or restore /var/lib/kairos/agent from a backup; " + resetHint
}

// retire takes this machine out of Kubernetes, because cluster.enabled is false
// or a person wants it to leave. Nothing is deleted but k3s' container: state,
// data and pods stay, and with enabled: true, or after a reboot that wiped
// nothing, the machine is again what it was.
func (p *planner) retire(why string) {
	f := &p.f
	if f.AppliedPodCIDR.IsValid() && f.OverlayUp {
		p.do(WithdrawNetwork{})
	}
	switch {
	case f.K3s.Container == Present:
		p.do(Stop{why})
	case f.K3s.Container == Unknown && f.Marker.Presence != Absent:
		// Without a marker k3s never ran here, and containerd need not exist.
		p.wait("", "waiting for containerd, to see whether k3s must be stopped", "see `systemctl status containerd`")
	}
}

// recover handles a node whose state knows of no cluster. If its k3s data
// directory knows of one, the state was lost; the directory's marker restores
// it. It reports whether the turn ends here.
func (p *planner) recover() bool {
	f := &p.f
	switch {
	case f.Datastore == Absent && f.Marker.Presence == Absent && f.K3s.Container == Absent:
		return false
	case f.Datastore == Unknown || f.Marker.Presence == Unknown || f.K3s.Container == Unknown:
		p.wait("", "waiting to see whether k3s ran here before: its data or containerd cannot be looked at", "see `systemctl status containerd`")
	case f.Marker.Presence == Absent:
		p.ask(health.CodeNeedsOperator, "k3s ran here before, the agent's state is gone, and nothing says which cluster it was",
			"restore /var/lib/kairos/agent from a backup; "+resetHint)
	case f.Marker.Role == store.Server && f.Datastore == Absent:
		p.ask(health.CodeNeedsOperator, fmt.Sprintf("this machine was the server of cluster %s; the agent's state and the cluster's data are gone", f.Marker.UID),
			"restore them from a backup; "+resetHint)
	default:
		// It may have voted and forgot: it keeps out of the epochs up to the marker's.
		p.do(Abstain{f.Marker.Epoch})
		p.save(func(s *store.State) {
			s.Role, s.ClusterUID, s.Epoch, s.Servers = f.Marker.Role, f.Marker.UID, f.Marker.Epoch, f.Marker.Servers
			s.Phase = store.Starting
			if f.Marker.Role == store.Server {
				s.Phase = store.Running // the careful reading: never to be created again
			}
		})
		p.because("restoring this machine's role from its k3s data")
	}
	return true
}

// annotations is what this node tells the others.
func (p *planner) annotations() map[string]string {
	f, st := &p.f, &p.st
	out := map[string]string{rights.NotePhase: string(st.Phase)}
	set := func(key, value string) {
		if value != "" {
			out[key] = value
		}
	}
	set(rights.NoteWaiting, p.waiting)
	if f.Leaving {
		// Who still agrees on a first server must not choose one that is going,
		// nor wait for it: the phase says that this machine is not there for it.
		out[rights.NotePhase], out[rights.NoteRoleWanted] = rights.PhaseLeaving, string(agentapi.WantedWorker)
		return out
	}
	if !f.ClusterEnabled {
		out[rights.NotePhase], out[rights.NoteRoleWanted] = rights.PhaseDisabled, string(agentapi.WantedWorker)
		return out
	}
	set(rights.NoteRoleWanted, string(f.Wanted))
	if !p.votes || f.Genesis.Abstains {
		// Nobody may wait for it to propose, whatever role it wanted.
		out[rights.NoteVotes], out[rights.NoteRoleWanted] = rights.VotesNo, string(agentapi.WantedWorker)
	}
	set(rights.NoteImages, f.Images)
	if f.Store != StoreUnusable && st.Phase.AtLeast(store.Decided) {
		set(rights.NoteRole, string(st.Role))
		set(rights.NoteClusterUID, st.ClusterUID)
		set(rights.NoteEpoch, fmt.Sprint(st.Epoch))
	}
	if st.Phase != store.Running || f.Store == StoreUnusable {
		return out
	}
	set(rights.NoteKubernetes, f.K3s.Version)
	if f.K3s.Ready && f.AppliedPodCIDR.IsValid() {
		out[rights.NoteReady] = "true"
	}
	if own := p.server(func(s Server) bool { return s.ID == f.Self }); st.Role == store.Server && own != nil {
		set(rights.NoteServer, own.Endpoint)
		set(rights.NoteCA, own.CAHash)
	}
	return out
}

// server returns the first published server of this node's cluster that fits.
func (p *planner) server(fits func(Server) bool) *Server {
	for i := range p.f.Servers {
		if s := &p.f.Servers[i]; s.UID == p.st.ClusterUID && s.UID != "" && p.named(s.ID) && fits(*s) {
			return s
		}
	}
	return nil
}

// named reports whether a member may be this cluster's server at all. Everybody
// can publish an endpoint and another's UID: only who the certificate names is
// given a worker, and only its CA is looked at.
func (p *planner) named(id identity.ID) bool {
	return id == p.f.Self || slices.Contains(p.servers(), id)
}

// servers are those that the agreement named. Where the state was restored from
// a marker without them, the proof that the others keep tells.
func (p *planner) servers() []identity.ID {
	if d := p.f.Genesis.Decision; len(p.st.Servers) == 0 && d != nil && d.UID == p.st.ClusterUID {
		return d.Servers
	}
	return p.st.Servers
}
