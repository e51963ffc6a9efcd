package mesh

import (
	"sync/atomic"

	"github.com/kairos-io/kairos/overlay/admission"
)

type counters struct {
	dials, dialsFailed, streamsRefused, lost atomic.Uint64
}

// Stats counts since the start of the mesh.
type Stats struct {
	Admission      admission.Stats
	Dials          uint64 // connections tried
	DialsFailed    uint64 // of these, not admitted
	StreamsRefused uint64 // unknown protocol, or too many at once
	Lost           uint64 // connections closed because the peer fell silent
	Members        int    // peers known, connected or not
	Peers          int    // peers connected
	KernelDrops    uint64 // packets that did not fit into the buffers of the UDP sockets
	QUICDrops      uint64 // packets that QUIC had no time to read from them
	Unsegmented    int    // UDP sockets that send packets one by one: socket.Stats
}

// Stats returns the counters.
func (m *Mesh) Stats() Stats {
	under := m.under.Stats()
	s := Stats{
		Admission:      m.gate.Stats(),
		Dials:          m.stats.dials.Load(),
		DialsFailed:    m.stats.dialsFailed.Load(),
		StreamsRefused: m.stats.streamsRefused.Load(),
		Lost:           m.stats.lost.Load(),
		KernelDrops:    under.KernelDrops,
		QUICDrops:      under.QUICDrops,
		Unsegmented:    under.Unsegmented,
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Members, s.Peers = m.sched.Counts().Members, len(m.peers)
	return s
}
