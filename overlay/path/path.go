package path

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Path is a way that packets take to a peer. It is comparable.
type Path struct {
	Socket uint16         // the number of a socket of this machine
	Local  netip.Addr     // packets leave from it; not valid: the kernel chooses
	Remote netip.AddrPort // where they go
	Via    identity.ID    // the member that passes them on; zero: none, the path is direct
}

// Stream is the path of last resort: frames on a stream of the peer's connection.
var Stream Path

// IsStream reports whether the path is Stream.
func (p Path) IsStream() bool { return p == Stream }

// Direct reports whether packets go without a relay.
func (p Path) Direct() bool { return p.Via.IsZero() }

// String names the path for a log.
func (p Path) String() string {
	if p.IsStream() {
		return "stream"
	}
	local := "any"
	if p.Local.IsValid() {
		local = p.Local.String()
	}
	text := fmt.Sprintf("%s>%s", local, p.Remote)
	if !p.Direct() {
		text += " via " + p.Via.Short()
	}
	return text
}

// matches reports whether packets of p may be those of other: the kernel's choice of
// the source address may be any.
func (p Path) matches(other Path) bool {
	if !p.Local.IsValid() || !other.Local.IsValid() {
		p.Local, other.Local = netip.Addr{}, netip.Addr{}
	}
	return p == other
}

// anyLocal is the path with the source address left to the kernel.
func (p Path) anyLocal() Path {
	p.Local = netip.Addr{}
	return p
}

// State is what a path is good for.
type State uint8

// The states, from bad to good.
const (
	Candidate State = iota // it was not proven yet
	Dead                   // it was, and does not answer any more
	Narrow                 // it answers, but packets of the floor do not get through
	Suspect                // packets get through, or did until just now: it owes an answer
	Alive                  // packets get through
)

// String names the state for people.
func (s State) String() string {
	switch s {
	case Candidate:
		return "candidate"
	case Dead:
		return "dead"
	case Narrow:
		return "narrow"
	case Suspect:
		return "suspect"
	case Alive:
		return "alive"
	}
	return "unknown"
}

// Info is what is known of a path. Times are of the caller's clock.
type Info struct {
	Path
	State        State
	Chosen       bool
	Why          string        // it is chosen, or is not
	MTU          int           // the largest packet in bytes that gets through; 0: not known
	RTT, LastRTT time.Duration // smoothed, and of the last probe
	Loss         int           // of the last 32 probes, those without an answer, in percent
	Heard        time.Duration // when the last authenticated packet came by it; 0: never
}

// Activity is what the caller saw on a path since it was asked last.
type Activity struct {
	Used    bool          // packets were sent
	Large   bool          // of these, some were larger than the floor
	Waiting time.Duration // when the first one was sent since the last was heard; 0: none
	Heard   time.Duration // when the last authenticated packet came; 0: never
}
