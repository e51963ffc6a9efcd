package role

import (
	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/health"
)

// Which k3s may run where goes by the minor version of Kubernetes in it:
// https://kubernetes.io/releases/version-skew-policy. It is asked before an image is
// fetched for nothing.

// misfit is why the k3s that is wanted must not be started.
type misfit struct{ reason, hint string }

// fits tells what unfit has to say, and reports whether that is nothing. One that runs
// goes on; where none runs, none is started.
func (p *planner) fits(unfit func() *misfit) bool {
	m := unfit()
	switch {
	case m == nil:
		return true
	case p.f.K3s.Running:
		p.note(health.CodeVersion, m.reason, m.hint)
	default:
		p.ask(health.CodeVersion, m.reason, m.hint)
	}
	return false
}

// dataFits: a server's data must not go to an earlier minor version than the one that had
// them, and no version may be left out. A copy that an earlier version has left is its way
// back.
func (p *planner) dataFits() *misfit {
	v := &p.f.Versions
	if v.Restoring || v.Ran == (agentapi.K3s{}) || v.Wanted == (agentapi.K3s{}) {
		return nil
	}
	switch agentapi.DataStep(v.Ran, v.Kept, v.Wanted) {
	case agentapi.StepDown:
		return &misfit{v.Ran.String() + " has this cluster's data, and " + v.Wanted.String() + " must not get it: it is an earlier minor version",
			"go back to the later one: with `kairos upgrade`, or in k3s.image"}
	case agentapi.StepFar:
		return &misfit{v.Ran.String() + " has this cluster's data, and " + v.Wanted.String() + " must not get it: no minor version may be left out",
			"go by each minor version between, one after the other"}
	}
	return nil
}

// returns reports whether the version that is wanted has left a copy, and another one had
// the data since.
func (p *planner) returns() bool {
	v := &p.f.Versions
	return v.Kept != nil && v.Kept.To(v.Wanted) == agentapi.StepNone && v.Ran.To(v.Wanted) != agentapi.StepNone
}

// handOver sees to it that the k3s that is wanted finds the server's data as it may have
// them: copied before they go to another minor version, and put back as the one that
// returns has left them. It reports whether k3s may be started now.
func (p *planner) handOver(first bool) bool {
	v := &p.f.Versions
	var step Action
	switch {
	case v.Restoring || p.returns():
		step = RestoreDatastore{}
	case first || v.Ran == (agentapi.K3s{}) || v.Wanted == (agentapi.K3s{}) || v.Ran.To(v.Wanted) == agentapi.StepNone:
		return true
	default:
		step = KeepDatastore{v.Ran}
	}
	if p.f.K3s.Running {
		p.do(Stop{"another minor version of Kubernetes gets the cluster's data"})
		p.because("stopping k3s, to start another version of it")
		return false
	}
	p.do(step)
	if v.Restoring { // by whichever version: what it had is what counts in the next turn
		p.because("putting the cluster's data back")
		return false
	}
	return true
}

// serversFit: no kubelet may be of a later minor version than the servers. One that has
// run already is started again, whatever became of them.
func (p *planner) serversFit() *misfit {
	wanted := p.f.Versions.Wanted
	if p.f.Versions.Ran.To(wanted) == agentapi.StepNone {
		return nil
	}
	older := p.server(func(s Server) bool { return agentapi.K3s{Kubernetes: s.Kubernetes}.Before(wanted) })
	if older == nil {
		return nil
	}
	return &misfit{"server " + older.Name + " runs Kubernetes " + agentapi.Printable(older.Kubernetes) + ", and must be upgraded before " + wanted.String() + " starts here",
		"upgrade the servers first"}
}
