package underlay

import "slices"

// Stats counts what happened since Open. Counters of sockets that are closed stay in.
type Stats struct {
	KernelDrops uint64 // packets that the kernel threw away because a socket's buffer was full
	QUICDrops   uint64 // packets of connections that were thrown away because too many came at once
	Unsegmented int    // open sockets that cannot send several packets with one system call
	Refused     uint64 // connections turned away by Allow or by the limits, before their handshake
}

// Stats returns the counters.
func (u *Underlay) Stats() Stats {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.past
	for _, e := range u.endpoints {
		now := e.socket.Stats()
		s.KernelDrops += e.drops.count(now.KernelDrops)
		s.QUICDrops += now.QUICDrops
		if now.Unsegmented {
			s.Unsegmented++
		}
	}
	s.Refused = u.refused.Load()
	return s
}

// dropLocked takes an endpoint off the list. What its socket has counted stays.
func (u *Underlay) dropLocked(e *endpoint) {
	u.endpoints = slices.DeleteFunc(u.endpoints, func(other *endpoint) bool { return other == e })
	last := e.socket.Stats()
	u.past.KernelDrops += e.drops.count(last.KernelDrops)
	u.past.QUICDrops += last.QUICDrops
}

// tally makes a counter that only grows of one that counts modulo 2^32. It must be asked
// before that has gone half of the way round.
type tally struct {
	sum  uint64
	last uint32
}

// count takes what the counter says now, and returns what was counted in all.
func (t *tally) count(value uint32) uint64 {
	if more := int32(value - t.last); more > 0 {
		t.sum, t.last = t.sum+uint64(more), value
	}
	return t.sum
}
