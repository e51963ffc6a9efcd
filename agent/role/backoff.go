package role

import "time"

// PauseAfter is how long to wait after so many failures in a row.
func PauseAfter(fails int) time.Duration {
	if fails == 0 {
		return 0
	}
	return min(time.Second<<min(fails, 6), time.Minute)
}

// steady is how long k3s must have worked before its earlier ends are forgotten.
const steady = time.Minute

// Backoff spaces the starts of k3s when it does not stay up. The zero value is ready.
type Backoff struct {
	Fails int
	Next  time.Time // no start before
	Cause error     // why the last start failed; nil when it did not
	Well  time.Time // since when k3s works; zero while it does not
}

// Failed notes that k3s has to be started again, or could not be because of cause.
func (b *Backoff) Failed(now time.Time, cause error) {
	b.Fails++
	b.Next, b.Cause, b.Well = now.Add(PauseAfter(b.Fails)), cause, time.Time{}
}

// Worked notes that k3s works now. One that ends soon after each start must
// not be started without a pause for ever, so the failures are kept for a while.
func (b *Backoff) Worked(now time.Time) {
	switch {
	case b.Fails == 0:
	case b.Well.IsZero():
		b.Well = now
	case now.Sub(b.Well) >= steady:
		*b = Backoff{}
	}
}
