package role

import (
	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/health"
)

// dataFits sees to it that the k3s that is wanted can have the server's data: what an
// earlier minor version of Kubernetes had is copied before a later one first starts, and
// put back when the earlier one returns. fit reports whether it may be started; ok,
// whether anything more is to be done in this turn.
func (p *planner) dataFits(first bool) (fit, ok bool) {
	v := &p.f.Versions
	step := v.Ran.To(v.Wanted)
	switch {
	case v.Restoring: // by whichever version: what it had is what counts in the next turn
		p.stopped(RestoreDatastore{})
		p.because("putting the cluster's data back")
		return false, false
	case first || v.Ran == (agentapi.K3s{}) || v.Wanted == (agentapi.K3s{}) || step == agentapi.StepNone:
		return true, true
	case v.Kept != nil && v.Kept.To(v.Wanted) == agentapi.StepNone:
		return p.stopped(RestoreDatastore{})
	case step == agentapi.StepDown:
		return p.unfit(v.Ran.String()+" has this cluster's data, and "+v.Wanted.String()+" must not get it: it is an earlier minor version",
			"go back to the later one: with `kairos upgrade`, or in k3s.image")
	case step == agentapi.StepFar:
		return p.unfit(v.Ran.String()+" has this cluster's data, and "+v.Wanted.String()+" must not get it: no minor version may be left out",
			"go by each minor version between, one after the other")
	}
	return p.stopped(KeepDatastore{v.Ran})
}

// stopped plans a step for which k3s must not run.
func (p *planner) stopped(a Action) (fit, ok bool) {
	if p.f.K3s.Running {
		p.do(Stop{"another minor version of Kubernetes gets the cluster's data"})
		p.because("stopping k3s, to start another version of it")
		return false, false
	}
	p.do(a)
	return true, true
}

// unfit tells why the k3s that is wanted is not started. One that runs goes on.
func (p *planner) unfit(reason, hint string) (fit, ok bool) {
	if p.f.K3s.Running {
		p.note(health.CodeVersion, reason, hint)
		return false, true
	}
	p.ask(health.CodeVersion, reason, hint)
	return false, false
}

// serversFit sees to it that no kubelet is of a later minor version than the servers:
// https://kubernetes.io/releases/version-skew-policy. What it returns is as in dataFits.
func (p *planner) serversFit() (fit, ok bool) {
	wanted := p.f.Versions.Wanted
	older := p.server(func(s Server) bool {
		step := agentapi.K3s{Kubernetes: s.Kubernetes}.To(wanted)
		return step == agentapi.StepUp || step == agentapi.StepFar
	})
	if older == nil {
		return true, true
	}
	reason := "waiting for server " + older.Name + ", which runs Kubernetes " + agentapi.Printable(older.Kubernetes) + ", to be upgraded before " + wanted.String() + " starts here"
	if p.f.K3s.Running {
		p.note(health.CodeVersion, reason, "upgrade the servers first")
		return false, true
	}
	p.wait(health.CodeVersion, reason, "upgrade the servers first")
	return false, false
}
