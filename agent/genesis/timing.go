package genesis

import (
	"fmt"
	"slices"
	"strings"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// eligible returns who may be named as a server among the connected members,
// by ID: those with role master where there are any, else all but workers. One that
// does not vote cannot propose, so that nobody waits for it.
func eligible(members []Member) []identity.ID {
	var masters, others []identity.ID
	for _, m := range members {
		switch {
		case !m.Connected || m.Abstains || m.Wanted == agentapi.WantedWorker:
		case m.Wanted == agentapi.WantedMaster:
			masters = append(masters, m.ID)
		default:
			others = append(others, m.ID)
		}
	}
	if len(masters) == 0 {
		masters = others
	}
	slices.SortFunc(masters, identity.ID.Compare)
	return masters
}

// Elector decides when this node proposes. It is polite, not safe: whatever it
// says, no second cluster comes of it. Times are of one monotonic clock.
type Elector struct {
	Self    identity.ID
	Network Network
	Jitter  time.Duration // added to the turn of all but the first

	view  string
	since time.Duration
}

// Verdict is what an Elector says.
type Verdict struct {
	Due    bool          // propose now
	At     time.Duration // if not Due: when it may be, if nothing changes; 0: not by waiting
	Reason string        // one line, for people, without numbers that change by themselves
}

// Look takes in the view and says whether Self is to propose. The node with
// the lowest ID among the eligible goes first: at once when all n declared
// nodes are there, else after the view of at least Q has not changed for
// SettleTime. The following ranks come RankDelay after each other, plus jitter.
func (e *Elector) Look(now time.Duration, members []Member) Verdict {
	n, present, silent := e.Network, 0, 0
	var view []string
	for _, m := range members {
		switch {
		case m.Connected && m.Abstains:
			silent++
		case m.Connected:
			present++
			view = append(view, string(m.ID[:])+string(m.Wanted))
		}
	}
	slices.Sort(view)
	if key := strings.Join(view, "\x00"); key != e.view {
		e.view, e.since = key, now
	}
	if present < n.Quorum {
		seen := fmt.Sprint(present)
		if silent > 0 {
			seen += fmt.Sprintf(" and %d that cannot vote (each says why)", silent)
		}
		return Verdict{Reason: fmt.Sprintf("need %d machines of %d to agree, see %s: start more machines with this token", n.Quorum, n.Nodes, seen)}
	}
	rank := slices.Index(eligible(members), e.Self)
	if rank < 0 {
		return Verdict{Reason: whyNotEligible(eligible(members))}
	}
	at := e.since + time.Duration(rank)*RankDelay
	// A lone node sees all n = 1 nodes at once, itself: it still gives an
	// existing cluster the time to be heard of.
	if present != n.Nodes || n.Nodes == 1 {
		at += SettleTime
	}
	if rank > 0 {
		at += e.Jitter
	}
	if now >= at {
		return Verdict{Due: true}
	}
	if rank > 0 {
		return Verdict{At: at, Reason: fmt.Sprintf("waiting for node %s to propose the cluster", eligible(members)[0].Short())}
	}
	return Verdict{At: at, Reason: fmt.Sprintf("see %d machines, waiting %s for more before the cluster is made", present, SettleTime)}
}

func whyNotEligible(others []identity.ID) string {
	if len(others) == 0 {
		return "every machine seen has role: worker; a cluster needs one with role master or none"
	}
	return fmt.Sprintf("waiting for node %s to propose the cluster", others[0].Short())
}

// Patience decides when a decided but unheard-of server is given up.
type Patience struct {
	Jitter time.Duration // added to the turn of all but the first

	uid  UID
	last time.Duration
}

// Look says whether this node is to propose that the cluster uid was abandoned.
// heard is whether a member publishes its server now, rank this node's place
// among the connected nodes.
func (p *Patience) Look(now time.Duration, uid UID, heard bool, rank int) Verdict {
	if p.uid != uid || heard {
		p.uid, p.last = uid, now
	}
	at := p.last + AbandonAfter + time.Duration(rank)*RankDelay
	if rank > 0 {
		at += p.Jitter
	}
	return Verdict{Due: now >= at, At: at}
}
