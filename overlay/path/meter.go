package path

import (
	"math/bits"
	"time"
)

// lossOf is how many probes the loss is told of.
const lossOf = 32

// meter measures round trips and loss.
type meter struct {
	rtt, smooth, spread time.Duration // the last round trip; their mean and deviation (RFC 6298)

	counted uint64 // probes that the loss is told of: of sizes that get through
	recent  int    // of these, the ones too young to be lost
	missing uint64 // a bit for each, the last is the lowest
}

// count counts a probe, and returns which one it is.
func (m *meter) count() uint64 {
	m.counted++
	m.recent++
	m.missing = m.missing<<1 | 1
	return m.counted
}

// found says that a probe was answered, or does not count; 0 is none.
func (m *meter) found(counted uint64) {
	if age := m.counted - counted; counted > 0 && age < 64 {
		m.missing &^= 1 << age
	}
}

// measure takes a round trip. One of no time is told from none by the least of all times.
func (m *meter) measure(rtt time.Duration) {
	rtt = max(rtt, 1)
	if m.rtt = rtt; m.smooth == 0 {
		m.smooth, m.spread = rtt, rtt/2
		return
	}
	m.spread += ((rtt - m.smooth).Abs() - m.spread) / 4
	m.smooth += (rtt - m.smooth) / 8
}

// patience is how long an answer takes at most, as far as is known (RFC 6298).
func (m *meter) patience() time.Duration {
	if m.smooth == 0 {
		return probeWait
	}
	return min(max(m.smooth+4*m.spread, probeFirst), probeWait)
}

// loss is the share of the last lossOf probes without an answer, in percent. Those
// of sizes that do not get through do not count.
func (m *meter) loss() int {
	n := min(int(m.counted)-m.recent, lossOf)
	if n <= 0 {
		return 0
	}
	lost := bits.OnesCount64(m.missing >> m.recent & (1<<lossOf - 1))
	return (100*lost + n/2) / n
}
