package session

// WindowSize is how far behind the highest counter a packet may be, at least.
const WindowSize = windowBits - wordBits

const (
	wordBits   = 64
	windowBits = 8192 // of the ring; one word of it is being cleared
	words      = windowBits / wordBits
)

// window remembers which counters were seen: RFC 6479. The zero window has seen
// none. It is not safe for concurrent use.
type window struct {
	ring [words]uint64
	next uint64 // one above the highest counter seen
}

// fresh reports whether the counter is new and not too old.
func (w *window) fresh(counter uint64) bool {
	if counter >= w.next {
		return true
	}
	if w.next-counter > WindowSize {
		return false
	}
	return w.ring[counter/wordBits%words]&(1<<(counter%wordBits)) == 0
}

// mark notes a counter that is fresh.
func (w *window) mark(counter uint64) {
	if counter >= w.next {
		w.advance(counter)
	}
	w.ring[counter/wordBits%words] |= 1 << (counter % wordBits)
}

// advance makes the counter the highest one, and forgets what falls out.
func (w *window) advance(counter uint64) {
	word := counter / wordBits
	last := uint64(0) // the highest word in use
	if w.next > 0 {
		last = (w.next - 1) / wordBits
	}
	if word-last >= words {
		clear(w.ring[:])
	} else {
		for i := last + 1; i <= word; i++ {
			w.ring[i%words] = 0
		}
	}
	w.next = counter + 1
}
