package admission

import (
	"container/list"
	"sync"

	"github.com/kairos-io/kairos/overlay/identity"
)

// maxProven bounds the IDs that a gate remembers.
const maxProven = 4096

// proven is the IDs that proved a door in this run of the process, the longest unseen
// forgotten first. The zero value is empty. It is safe for concurrent use.
type proven struct {
	mu    sync.Mutex
	ids   map[identity.ID]*list.Element // of identity.ID
	order list.List                     // front: seen last
}

func (p *proven) add(id identity.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if el, ok := p.ids[id]; ok {
		p.order.MoveToFront(el)
		return
	}
	if p.ids == nil {
		p.ids = make(map[identity.ID]*list.Element)
	}
	if len(p.ids) >= maxProven {
		oldest := p.order.Back()
		delete(p.ids, oldest.Value.(identity.ID))
		p.order.Remove(oldest)
	}
	p.ids[id] = p.order.PushFront(id)
}

func (p *proven) has(id identity.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.ids[id]
	return ok
}
