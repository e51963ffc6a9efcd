package mesh

import "time"

// Timing is the clockwork of a mesh. Zero fields take the defaults.
type Timing struct {
	Beat      time.Duration // silence of ours after which we send a beat, 10 s
	Dead      time.Duration // silence of theirs after which a peer is gone, 15 s
	Grace     time.Duration // life of a connection that another one replaced, 10 s
	Dial      time.Duration // bound of one dial with its handshake, 5 s
	TCPDelay  time.Duration // head start of QUIC before TCP is tried as well, 250 ms
	Deference time.Duration // head start of the lower ID before the higher dials, 500 ms
	Admission time.Duration // bound of one admission, admission.DefaultDeadline
	Upgrade   time.Duration // first wait before QUIC is tried for a peer on TCP, doubling up to 10 min; 2 s
	Watch     time.Duration // interval of looking at the machine's addresses, 5 s
}

func (t Timing) withDefaults() Timing {
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&t.Beat, 10*time.Second)
	set(&t.Dead, 15*time.Second)
	set(&t.Grace, 10*time.Second)
	set(&t.Dial, 5*time.Second)
	set(&t.TCPDelay, 250*time.Millisecond)
	set(&t.Deference, 500*time.Millisecond)
	set(&t.Admission, 5*time.Second)
	set(&t.Upgrade, 2*time.Second)
	set(&t.Watch, 5*time.Second)
	return t
}

// maxUpgrade bounds the doubling of Timing.Upgrade.
const maxUpgrade = 10 * time.Minute

// settle is how close two connections of one peer may come up to count as
// simultaneous: both ends then choose by name, not by age, on which they
// could differ.
const settle = 5 * time.Second
