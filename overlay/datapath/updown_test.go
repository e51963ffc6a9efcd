package datapath

import (
	"testing"
)

// Peers come and go as connections do, with packets on it all the time:
// none of them blocks it, and nothing is left of the peers that are gone.
func TestPeersComeAndGoUnderTraffic(t *testing.T) {
	a := newAir(t)
	one, two := a.members[0], a.members[1]
	stop := make(chan struct{})
	defer close(stop)
	// Local programs answer what they get. What is lost on the way, send begins anew.
	for _, ends := range [2][2]*member{{one, two}, {two, one}} {
		here, there := ends[0], ends[1]
		a.running.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-here.dev.Out:
					here.dev.Inject(packet(here.v4, there.v4, i, 100+i%1300))
				case <-stop:
					return
				}
			}
		})
	}
	send := func() {
		for i := range 32 {
			one.dev.Inject(packet(one.v6, two.v6, i, 100))
		}
		a.set(func() { a.seen = nil })
	}
	for i := range 200 {
		send()
		waitFor(t, func() bool { return one.kind(two) == KindDirect && two.kind(one) == KindDirect })
		before := two.dp.Stats().Peers[one.id].RxPackets
		waitFor(t, func() bool { send(); return two.dp.Stats().Peers[one.id].RxPackets > before })
		for _, ends := range [2][2]*member{{one, two}, {two, one}} {
			if i%25 > 0 || ends[0] == one { // both ends, or one of them
				a.again(ends[0])
			}
		}
	}
	for _, m := range a.members {
		waitFor(t, func() bool { return len(*m.dp.arrivals.Load()) <= 3 }) // of one peer: keys before, now and next
	}
}
