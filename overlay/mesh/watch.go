package mesh

import (
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/discovery"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/secret"
)

// watchNetwork looks at the machine's addresses now and then, which costs two
// system calls, and has everything tried again when they change.
func (m *Mesh) watchNetwork() {
	ticker := time.NewTicker(m.timing.Watch)
	defer ticker.Stop()
	before := m.Underlay()
	for {
		select {
		case <-ticker.C:
		case <-m.ctx.Done():
			return
		}
		after := m.Underlay()
		if slices.Equal(before, after) {
			continue
		}
		before = after
		m.log.Info("this machine's addresses changed", "addr", after)
		m.mu.Lock()
		m.emitLocked(UnderlayChanged, identity.ID{})
		m.mu.Unlock()
		m.kick.fire()
	}
}

// runMDNS announces this node on the local network and listens for others.
func (m *Mesh) runMDNS() {
	var keys []secret.Key
	for _, d := range m.cfg.Keys.Doors {
		keys = append(keys, d.Find.MDNS)
	}
	mdns := &discovery.MDNS{
		Keys:   keys,
		Self:   m.self,
		Addrs:  m.Underlay,
		Usable: m.acceptable,
		Found:  m.found,
		Log:    m.log,
	}
	mdns.Run(m.ctx)
}
