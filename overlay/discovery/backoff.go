package discovery

import "time"

// The bounds of Backoff.
const (
	minBackoff = 500 * time.Millisecond
	maxBackoff = 2 * time.Minute
)

// Backoff returns how long to wait before an address is tried again that has
// not answered for the given time: an eighth of that, so that whatever comes
// back is found after about an eighth of its absence, and a machine that was
// switched off for good costs next to nothing. jitter in [0, 1) spreads the
// tries of many nodes over the last quarter.
func Backoff(away time.Duration, jitter float64) time.Duration {
	d := min(max(away/8, minBackoff), maxBackoff)
	return d - time.Duration(jitter*float64(d)/4)
}
