package admission

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Limits bound what strangers can make a node do. The zero value of a field
// stands for its default.
type Limits struct {
	Pending        int           // admissions of strangers at once, default 1024
	PendingPerAddr int           // of these, for one address, default 256: a whole site may start behind one NAT
	PendingMembers int           // admissions of known members at once, default 1024; strangers take none of them
	PendingPerPeer int           // admissions at once for one ID, known or not, default 32
	Failures       int           // failures that one address may collect at once, default 32
	Refill         time.Duration // time after which one failure is forgiven, default 2 s
	Addrs          int           // addresses, and networks of each size, remembered; default 4096; the longest unseen is forgotten first
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	set(&l.Pending, 1024)
	set(&l.PendingPerAddr, 256)
	set(&l.PendingMembers, 1024)
	set(&l.PendingPerPeer, 32)
	set(&l.Failures, 32)
	set(&l.Addrs, 4096)
	if l.Refill <= 0 {
		l.Refill = 2 * time.Second
	}
	return l
}

// What a failed admission of a stranger costs, in failures. One that the other side
// broke off said nothing wrong, and is what lost races look like before the first of a
// newcomer's connections is admitted; still it made this node work.
const (
	costFailure = 1.0
	costLeft    = 1.0 / 8
)

// welcome is how long an address that a peer was admitted from may open connections
// even when strangers behind the same NAT have spent its budget.
const welcome = time.Hour

// width is one size of network that is counted as a whole, and how much more of
// failures and admissions it may have than an address.
type width struct{ bits, failures, pending int }

// An IPv6 host owns a /64, a customer a /56 or /48. The first of a family is what counts
// as an address.
var (
	widths4 = []width{{32, 1, 1}, {24, 8, 2}}
	widths6 = []width{{64, 1, 1}, {56, 2, 2}, {48, 8, 3}}
)

// budget counts admissions and failures for each address and the networks around it.
type budget struct {
	limits Limits
	now    func() time.Time

	mu        sync.Mutex
	strangers int // pending
	members   int // pending
	peers     map[identity.ID]int
	levels    map[width]*level
}

// level is the networks of one size. Each size is remembered by itself, so that many
// addresses of one network do not make the network forgotten.
type level struct {
	width
	entries map[netip.Prefix]*list.Element // of *spender
	order   *list.List                     // front: seen last
}

type spender struct {
	key     netip.Prefix
	pending int
	tokens  float64 // failures left
	at      time.Time
	friend  time.Time // no refusal before the handshake until then
}

// slot is one admission under way.
type slot struct {
	addr  netip.Addr
	peer  identity.ID
	known bool
}

func newBudget(limits Limits, now func() time.Time) *budget {
	b := &budget{
		limits: limits.withDefaults(), now: now,
		peers: make(map[identity.ID]int), levels: make(map[width]*level),
	}
	for _, widths := range [][]width{widths4, widths6} {
		for _, w := range widths {
			b.levels[w] = &level{width: w, entries: make(map[netip.Prefix]*list.Element), order: list.New()}
		}
	}
	return b
}

// networkOf is the network of a size around addr; invalid addresses share one.
func networkOf(addr netip.Addr, bits int) netip.Prefix {
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// spendersLocked returns the up-to-date spenders that an address belongs to, its own
// first; mu is held.
func (b *budget) spendersLocked(addr netip.Addr) []levelSpender {
	addr = addr.Unmap().WithZone("")
	widths := widths4
	if addr.Is6() {
		widths = widths6
	}
	out := make([]levelSpender, 0, len(widths))
	for _, w := range widths {
		l := b.levels[w]
		out = append(out, levelSpender{l, b.getLocked(l, networkOf(addr, w.bits))})
	}
	return out
}

type levelSpender struct {
	*level
	*spender
}

func (b *budget) getLocked(l *level, key netip.Prefix) *spender {
	now, full := b.now(), float64(b.limits.Failures*l.failures)
	if el, ok := l.entries[key]; ok {
		s := el.Value.(*spender)
		s.tokens += float64(l.failures) * float64(now.Sub(s.at)) / float64(b.limits.Refill)
		s.tokens = min(s.tokens, full)
		s.at = now
		l.order.MoveToFront(el)
		return s
	}
	if len(l.entries) >= b.limits.Addrs {
		l.forget()
	}
	s := &spender{key: key, tokens: full, at: now}
	l.entries[key] = l.order.PushFront(s)
	return s
}

// forget drops the network unseen for longest that has nothing pending.
// There is one, because pending admissions are fewer than remembered addresses
// or the oldest are simply kept until they end.
func (l *level) forget() {
	for el := l.order.Back(); el != nil; el = el.Prev() {
		if s := el.Value.(*spender); s.pending == 0 {
			l.order.Remove(el)
			delete(l.entries, s.key)
			return
		}
	}
}

// solvent reports whether failures are left at every size.
func solvent(spenders []levelSpender) bool {
	for _, s := range spenders {
		if s.tokens < 1 {
			return false
		}
	}
	return true
}

// allowed reports whether addr may start a handshake.
func (b *budget) allowed(addr netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	spenders := b.spendersLocked(addr)
	return solvent(spenders) || spenders[0].at.Before(spenders[0].friend)
}

// begin reserves an admission; on true, end must follow.
func (b *budget) begin(s slot) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.peers[s.peer] >= b.limits.PendingPerPeer {
		return false
	}
	if s.known {
		if b.members >= b.limits.PendingMembers {
			return false
		}
		b.members++
		b.peers[s.peer]++
		return true
	}
	spenders := b.spendersLocked(s.addr)
	if !solvent(spenders) || b.strangers >= b.limits.Pending {
		return false
	}
	for _, sp := range spenders {
		if sp.spender.pending >= b.limits.PendingPerAddr*sp.level.pending {
			return false
		}
	}
	for _, sp := range spenders {
		sp.spender.pending++
	}
	b.strangers++
	b.peers[s.peer]++
	return true
}

// end gives the reservation back, and charges a stranger what the admission cost.
func (b *budget) end(s slot, cost float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.peers[s.peer]--; b.peers[s.peer] <= 0 {
		delete(b.peers, s.peer)
	}
	if s.known {
		b.members--
		return
	}
	b.strangers--
	for _, sp := range b.spendersLocked(s.addr) {
		sp.spender.pending--
		sp.tokens = max(0, sp.tokens-cost)
	}
}

// welcome notes that a peer was admitted from addr.
func (b *budget) welcome(addr netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.spendersLocked(addr)[0]
	s.friend = s.at.Add(welcome)
}
