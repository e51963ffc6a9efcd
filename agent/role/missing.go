package role

import "time"

// Bounds of a k3s that is well while Kubernetes does not know its node. A kubelet
// registers when it starts and never again, so only a restart brings a Node object back
// that somebody deleted.
const (
	// registering is what a first registration may take, on a slow machine.
	registering = 3 * time.Minute
	// deletedAgain is before the second restart: who deletes a Node object again and
	// again must not keep k3s from running.
	deletedAgain = time.Minute
)

// Missing is what is known of a node that Kubernetes does not know.
type Missing struct {
	For      time.Duration // k3s has been well for so long without it
	Known    bool          // it was there while this process of k3s ran: it was deleted
	Restarts int           // how often k3s was restarted for it, since it last was there for long
}

// limit is how long the node may be missing before k3s is restarted.
func (m Missing) limit() time.Duration {
	switch {
	case m.Known && m.Restarts == 0:
		return 0
	case m.Known:
		return min(deletedAgain<<min(m.Restarts, 8), longestLimit)
	}
	return min(registering<<min(m.Restarts, 8), longestLimit)
}

// lookForNode takes in what one turn says of the node, step after the one before.
func (w *Watch) lookForNode(k K3s, step time.Duration) {
	m := &w.missing
	switch {
	case !k.Running || !k.Ready || k.Node == Unknown:
		w.there = 0
	case k.Node == Present:
		w.there += step
		m.For, m.Known = 0, true
	default:
		w.there = 0
		m.For += step
	}
	if w.there >= forgiven {
		m.Restarts = 0
	}
}

// register brings a node back that Kubernetes does not know.
func (p *planner) register() {
	k := &p.f.K3s
	if k.Node != Absent {
		return
	}
	if k.Stale || k.Missing.For < k.Missing.limit() {
		p.wait("", "waiting for Kubernetes to know this machine", logHint)
		return
	}
	p.do(Restart{Reason: "Kubernetes does not know this machine's node any more", Missing: true})
	p.wait("", "bringing this machine's node back, which was deleted from Kubernetes", "to take a machine out for good, run `kairos reset` on it")
}
