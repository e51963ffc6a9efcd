package discovery

import (
	"math"
	"sync"
	"time"
)

// windowLength is for how long an announcement is believed after it was made, give or take
// as much.
const windowLength = 6 * time.Hour

// windows is a clock that tells windows, on which members agree whatever their own clocks
// say: it never goes back, and follows whoever is ahead. It is safe for concurrent use.
//
// A recording is behind every machine whose clock is right. One whose clock is behind
// believes recordings that are not, until it hears a member for the first time.
type windows struct {
	now func() time.Time // of the machine, right or wrong

	mu    sync.Mutex
	at    uint32    // the latest window known
	since time.Time // when that was; zero at the start
}

// current is the window to speak in.
func (w *windows) current() uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.currentLocked()
}

func (w *windows) currentLocked() uint32 {
	now := w.now()
	own := clamp(now.Unix() / int64(windowLength/time.Second))
	if !w.since.IsZero() {
		own = max(own, clamp(int64(w.at)+int64(now.Sub(w.since)/windowLength)))
	}
	if own > w.at || w.since.IsZero() {
		w.at, w.since = own, now
	}
	return w.at
}

func clamp(n int64) uint32 { return uint32(min(max(n, 0), math.MaxUint32)) }

// accept reports whether a member that speaks in a window is to be believed, and follows
// it if it is ahead.
func (w *windows) accept(said uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	own := int64(w.currentLocked())
	if int64(said) > own+1 {
		w.at, w.since = said, w.now()
	}
	return int64(said) >= own-1
}
