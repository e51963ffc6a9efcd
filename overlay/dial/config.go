package dial

import (
	"math"
	"net/netip"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Transport is what a dial goes over.
type Transport uint8

// The transports.
const (
	QUIC Transport = iota
	TCP
)

// String implements fmt.Stringer.
func (t Transport) String() string {
	if t == TCP {
		return "tcp"
	}
	return "quic"
}

// Config of a Scheduler. Self, Rand and a transport are required.
type Config struct {
	Self      identity.ID
	QUIC, TCP bool           // which transports this node has
	Rand      func() float64 // uniform in [0, 1)
	Timing    Timing
	Limits    Limits
}

// Timing is the scheduler's clockwork. Zero fields take the defaults.
type Timing struct {
	Step       time.Duration // between the addresses of one target while none answers, 150 ms
	TCPDelay   time.Duration // head start of QUIC before TCP, 250 ms
	Deference  time.Duration // head start of the lower ID, 500 ms
	MinBackoff time.Duration // shortest pause between rounds, 500 ms
	MaxBackoff time.Duration // longest, 2 min
	Upgrade    time.Duration // pause before QUIC is tried for a peer on TCP, doubling; 2 s
	MaxUpgrade time.Duration // longest of these, 10 min
	Rumour     time.Duration // life of a target that nobody vouches for, 1 min
	Met        time.Duration // life of a target without record after its last connection, 5 min
	News       time.Duration // between rounds that news cause, 1 s
	Stable     time.Duration // a connection that lived shorter is followed by a growing pause, 5 s
	Fresh      time.Duration // absence up to which a target is dialled before others, 1 min
	Resident   time.Duration // absence after which a host is asked again who lives there, 30 s
	SelfDial   time.Duration // before an address that turned out to be this node's is tried again, 10 min
	Spread     time.Duration // over which a change of the network spreads its dials, at most; 300 ms
	Change     time.Duration // after a change of the network before the next is acted on, 250 ms; 1 s if they go on
	Dial       time.Duration // bound of a dial, 5 s
	Stranger   time.Duration // the same where only rumours say that somebody is there, 2 s
}

func (t Timing) withDefaults() Timing {
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&t.Step, 150*time.Millisecond)
	set(&t.TCPDelay, 250*time.Millisecond)
	set(&t.Deference, 500*time.Millisecond)
	set(&t.MinBackoff, 500*time.Millisecond)
	set(&t.MaxBackoff, 2*time.Minute)
	set(&t.Upgrade, 2*time.Second)
	set(&t.MaxUpgrade, 10*time.Minute)
	set(&t.Rumour, time.Minute)
	set(&t.Met, 5*time.Minute)
	set(&t.News, time.Second)
	set(&t.Stable, 5*time.Second)
	set(&t.Fresh, time.Minute)
	set(&t.Resident, 30*time.Second)
	set(&t.SelfDial, 10*time.Minute)
	set(&t.Spread, 300*time.Millisecond)
	set(&t.Change, 250*time.Millisecond)
	set(&t.Dial, 5*time.Second)
	set(&t.Stranger, min(2*time.Second, t.Dial))
	return t
}

// Limits bound what is remembered and done at once. Zero fields take the defaults.
type Limits struct {
	Targets   int // kept, 4096
	Rumours   int // of these, not vouched for, 64
	Addrs     int // of one target from its record, and from its hosts: 32 each
	Heard     int // of one target from the local network, 8
	Members   int // dials at once to members, 128; a quarter of these only to who is away for less than Timing.Fresh
	Strangers int // dials at once on the word of strangers, 16
	PerTarget int // dials at once to one target, 16
	AtOnce    int // addresses of one target that are begun together, 1
}

func (l Limits) withDefaults() Limits {
	set := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	set(&l.Targets, 4096)
	set(&l.Rumours, 64)
	set(&l.Addrs, 32)
	set(&l.Heard, 8)
	set(&l.Members, 128)
	set(&l.Strangers, 16)
	set(&l.PerTarget, 16)
	set(&l.AtOnce, 1)
	return l
}

// never is later than everything.
const never = time.Duration(math.MaxInt64)

// Dial is one dial to make. The zero Want takes whoever answers.
type Dial struct {
	Number    uint64 // of this dial, for Done and Steps.Stop
	Want      identity.ID
	Host      string // the configured host that is asked who lives there; "" for members
	Addr      netip.AddrPort
	Transport Transport
	Timeout   time.Duration
}

// Steps is what to do now.
type Steps struct {
	Start   []Dial
	Stop    []uint64 // dials that are not needed any more; each is still reported by Done
	Resolve []string // names of hosts to look up; each is answered by Resolved
}

// Outcome is how a dial ended.
type Outcome uint8

// The outcomes.
const (
	Failed     Outcome = iota // nobody answered, or not the one who was wanted
	OK                        // the one who answered is connected
	Self                      // the address is this node's own
	NotAllowed                // this node does not want to be connected to it now
	Clone                     // another machine with this node's, or the peer's, key is connected
)

// Result reports a dial.
type Result struct {
	Number  uint64
	Outcome Outcome
	Peer    identity.ID // with OK
	Why     string      // for people, when it is not OK
}
