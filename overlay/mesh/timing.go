package mesh

import "time"

// Timing is the clockwork of a mesh. Zero fields take the defaults.
type Timing struct {
	Beat      time.Duration // silence of ours after which we send a beat, 10 s
	Dead      time.Duration // silence of theirs after which a peer is gone, 15 s
	Grace     time.Duration // life of a connection that another one replaced, 10 s
	Dial      time.Duration // bound of one dial up to the end of its handshake, 5 s
	TCPDelay  time.Duration // head start of QUIC before TCP is tried as well, 250 ms
	Deference time.Duration // head start of the lower ID before the higher dials, 500 ms
	Admission time.Duration // bound of one admission, admission.DefaultDeadline
	Upgrade   time.Duration // first wait before QUIC is tried for a peer on TCP, doubling up to 10 min; 2 s
	Probe     time.Duration // in which a peer must answer after the network changed, 200 ms
	Challenge time.Duration // in which a connection must answer when another run of its peer calls, 1.5 s
	Calm      time.Duration // between changes of the network that leave this machine's addresses as they are, 15 s
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
	set(&t.Probe, 200*time.Millisecond)
	set(&t.Challenge, 1500*time.Millisecond)
	set(&t.Calm, 15*time.Second)
	return t
}

// simultaneous is how close two connections of one peer must come up for both
// ends to choose between them by name, not by age, on which they could differ.
const simultaneous = 5 * time.Second
