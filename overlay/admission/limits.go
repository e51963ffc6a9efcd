package admission

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// Limits bound what strangers can make a node do. The zero value of a field
// stands for its default.
type Limits struct {
	Pending        int           // admissions at once, default 256
	PendingPerAddr int           // admissions at once for one address, default 64: a whole site may start behind one NAT
	Failures       int           // failures that one address may collect at once, default 32
	Refill         time.Duration // time after which one failure is forgiven, default 2 s
	Addrs          int           // addresses remembered, default 4096; the longest unseen is forgotten first
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	set(&l.Pending, 256)
	set(&l.PendingPerAddr, 64)
	set(&l.Failures, 32)
	set(&l.Addrs, 4096)
	if l.Refill <= 0 {
		l.Refill = 2 * time.Second
	}
	return l
}

// budget counts admissions and failures for each address. An IPv6 host owns a
// whole /64, so that is what counts as one address there.
type budget struct {
	limits Limits
	now    func() time.Time

	mu      sync.Mutex
	pending int
	entries map[netip.Prefix]*list.Element // of *spender
	order   *list.List                     // front: seen last
}

type spender struct {
	key     netip.Prefix
	pending int
	tokens  float64 // failures left
	at      time.Time
}

func newBudget(limits Limits, now func() time.Time) *budget {
	return &budget{
		limits:  limits.withDefaults(),
		now:     now,
		entries: make(map[netip.Prefix]*list.Element),
		order:   list.New(),
	}
}

func bucketOf(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil { // the invalid address: all of those share one bucket
		return netip.Prefix{}
	}
	return p
}

// getLocked returns the up-to-date spender of an address; mu is held.
func (b *budget) getLocked(addr netip.Addr) *spender {
	key, now := bucketOf(addr), b.now()
	if el, ok := b.entries[key]; ok {
		s := el.Value.(*spender)
		s.tokens += float64(now.Sub(s.at)) / float64(b.limits.Refill)
		s.tokens = min(s.tokens, float64(b.limits.Failures))
		s.at = now
		b.order.MoveToFront(el)
		return s
	}
	if len(b.entries) >= b.limits.Addrs {
		b.forgetLocked()
	}
	s := &spender{key: key, tokens: float64(b.limits.Failures), at: now}
	b.entries[key] = b.order.PushFront(s)
	return s
}

// forgetLocked drops the address unseen for longest that has nothing pending.
// There is one, because pending admissions are fewer than remembered addresses
// or the oldest are simply kept until they end.
func (b *budget) forgetLocked() {
	for el := b.order.Back(); el != nil; el = el.Prev() {
		if s := el.Value.(*spender); s.pending == 0 {
			b.order.Remove(el)
			delete(b.entries, s.key)
			return
		}
	}
}

// allowed reports whether addr still has failures to spend.
func (b *budget) allowed(addr netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.getLocked(addr).tokens >= 1
}

// begin reserves an admission; on true, end must follow.
func (b *budget) begin(addr netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.getLocked(addr)
	if s.tokens < 1 || b.pending >= b.limits.Pending || s.pending >= b.limits.PendingPerAddr {
		return false
	}
	b.pending++
	s.pending++
	return true
}

// end gives the reservation back and charges a failure.
func (b *budget) end(addr netip.Addr, failed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.getLocked(addr)
	b.pending--
	s.pending--
	if failed {
		s.tokens = max(0, s.tokens-1)
	}
}
