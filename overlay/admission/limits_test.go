package admission

import (
	"net/netip"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

type testClock struct{ t time.Time }

func (c *testClock) now() time.Time { return c.t }

func addrOf(text string) netip.Addr { return netip.MustParseAddr(text) }

// stranger is an attempt by an ID that nobody has seen before.
func stranger(addr netip.Addr) slot {
	strangers++
	return slot{addr: addr, peer: identity.ID{1, byte(strangers >> 16), byte(strangers >> 8), byte(strangers)}}
}

var strangers int

// allowedNow is allowed for whom no welcome is kept.
func (b *budget) allowedNow(addr string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return solvent(b.spendersLocked(addrOf(addr)))
}

// fails lets a stranger at addr fail; false when it is refused before.
func (b *budget) fails(addr netip.Addr) bool {
	s := stranger(addr)
	if !b.begin(s) {
		return false
	}
	b.end(s, costFailure)
	return true
}

func TestBudgetFailures(t *testing.T) {
	clock := &testClock{time.Unix(0, 0)}
	b := newBudget(Limits{Failures: 3, Refill: time.Second}, clock.now)
	bad, good := addrOf("192.0.2.1"), addrOf("192.0.2.2")
	for i := range 3 {
		if !b.fails(bad) {
			t.Fatalf("refused at failure %d of 3", i+1)
		}
	}
	if b.allowed(bad) || b.fails(bad) {
		t.Error("a fourth failure was allowed")
	}
	if !b.allowed(good) {
		t.Error("another address pays for it")
	}
	clock.t = clock.t.Add(time.Second)
	if !b.allowed(bad) || !b.fails(bad) || b.fails(bad) {
		t.Error("one failure is forgiven in a second, not more")
	}
	clock.t = clock.t.Add(time.Hour)
	for i := range 4 {
		if b.fails(bad) != (i < 3) {
			t.Errorf("after an hour, failure %d", i+1)
		}
	}
}

func TestBudgetLeavingCostsLess(t *testing.T) {
	b := newBudget(Limits{Failures: 2, Refill: time.Hour}, (&testClock{}).now)
	n := 0
	for s := stranger(addrOf("192.0.2.1")); b.begin(s); n++ {
		b.end(s, costLeft)
	}
	if n != 9 { // it is refused below one whole failure
		t.Errorf("%d connections were broken off for 2 failures, want 9", n)
	}
}

func TestBudgetSuccessIsFree(t *testing.T) {
	b := newBudget(Limits{Failures: 1, Refill: time.Hour}, (&testClock{}).now)
	for range 1000 { // a site behind one NAT
		s := stranger(addrOf("192.0.2.1"))
		if !b.begin(s) {
			t.Fatal("refused without a failure")
		}
		b.end(s, 0)
	}
}

func TestBudgetPending(t *testing.T) {
	b := newBudget(Limits{Pending: 3, PendingPerAddr: 2}, (&testClock{}).now)
	one, two := stranger(addrOf("192.0.2.1")), stranger(addrOf("192.0.2.2"))
	for i, tc := range []struct {
		s    slot
		want bool
	}{{one, true}, {one, true}, {one, false}, {two, true}, {two, false}} {
		if got := b.begin(tc.s); got != tc.want {
			t.Errorf("admission %d: %v, want %v", i, got, tc.want)
		}
	}
	member := slot{addr: one.addr, peer: identity.ID{9}, known: true}
	if !b.begin(member) {
		t.Error("strangers keep a member out")
	}
	b.end(member, costFailure)
	b.end(one, 0)
	if !b.begin(two) {
		t.Error("what was given back is not free")
	}
	b.end(one, 0)
	b.end(two, 0)
	b.end(two, 0)
	if b.strangers != 0 || b.members != 0 || len(b.peers) != 0 {
		t.Errorf("left over: %d strangers, %d members, %d peers", b.strangers, b.members, len(b.peers))
	}
}

// Nobody fills the door alone, neither with failures nor by waiting, however many
// addresses of its network it uses.
func TestBudgetOfNetworks(t *testing.T) {
	host := func(network string, i int) netip.Addr {
		p := netip.MustParsePrefix(network)
		raw := p.Addr().AsSlice()
		if p.Addr().Is4() {
			raw[3] = byte(i)
			return netip.AddrFrom4([4]byte(raw))
		}
		switch p.Bits() {
		case 48: // a /56 for each
			raw[6] = byte(i)
		case 56: // a /64 for each
			raw[7] = byte(i)
		default:
			raw[15] = byte(i)
		}
		return netip.AddrFrom16([16]byte(raw))
	}
	for _, tc := range []struct {
		network, other    string
		failures, pending int
	}{
		{"192.0.2.7/32", "192.0.2.8", 1, 1},
		{"192.0.2.0/24", "192.0.3.1", 8, 2},
		{"2001:db8:0:1::/64", "2001:db8:0:2::1", 1, 1},
		{"2001:db8:0:100::/56", "2001:db8:0:200::1", 2, 2},
		{"2001:db8:1::/48", "2001:db8:2::1", 8, 3},
	} {
		t.Run(tc.network, func(t *testing.T) {
			limits := Limits{Failures: 4, Refill: time.Hour, Pending: 1000, PendingPerAddr: 10}
			hosts := 256
			if tc.network == "192.0.2.7/32" {
				hosts = 1
			}
			at := func(i int) netip.Addr {
				if hosts == 1 {
					return addrOf("192.0.2.7")
				}
				return host(tc.network, i%hosts)
			}
			b := newBudget(limits, (&testClock{}).now)
			failed := 0
			for i := range 2000 {
				if b.fails(at(i)) {
					failed++
				}
			}
			if failed != tc.failures*limits.Failures {
				t.Errorf("%d failures, want %d", failed, tc.failures*limits.Failures)
			}
			if !b.allowed(addrOf(tc.other)) {
				t.Errorf("%s pays for it", tc.other)
			}
			b = newBudget(limits, (&testClock{}).now)
			waiting := 0
			for i := range 2000 {
				if b.begin(stranger(at(i))) {
					waiting++
				}
			}
			if waiting != tc.pending*limits.PendingPerAddr {
				t.Errorf("%d admissions at once, want %d", waiting, tc.pending*limits.PendingPerAddr)
			}
			if !b.begin(stranger(addrOf(tc.other))) {
				t.Errorf("%s finds the door full", tc.other)
			}
		})
	}
}

// With default limits one IPv6 customer leaves room at the door, and a whole site
// behind one address has enough.
func TestDefaultLimits(t *testing.T) {
	l := Limits{}.withDefaults()
	if most := widths6[len(widths6)-1].pending * l.PendingPerAddr; most >= l.Pending {
		t.Errorf("one /48 fills %d of %d", most, l.Pending)
	}
	if members := 48 * 3; l.PendingPerAddr < members {
		t.Errorf("%d at once behind one address, 48 machines that dial three addresses need %d", l.PendingPerAddr, members)
	}
}

func TestBudgetAddresses(t *testing.T) {
	for _, tc := range []struct {
		name, a, b string
		same       bool
	}{
		{"IPv4", "192.0.2.1", "192.0.2.2", false},
		{"IPv4 in IPv6", "192.0.2.1", "::ffff:192.0.2.1", true},
		{"one IPv6 host", "2001:db8::1", "2001:db8::ffff:1", true},
		{"two IPv6 hosts", "2001:db8::1", "2001:db8:0:1::1", false},
		{"zones", "fe80::1%a", "fe80::1%b", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBudget(Limits{}, (&testClock{}).now)
			a, c := b.spendersLocked(addrOf(tc.a))[0], b.spendersLocked(addrOf(tc.b))[0]
			if (a.spender == c.spender) != tc.same {
				t.Errorf("one budget: %v, want %v", !tc.same, tc.same)
			}
		})
	}
	b := newBudget(Limits{Failures: 1, Refill: time.Hour}, (&testClock{}).now)
	if !b.fails(netip.Addr{}) || b.fails(netip.Addr{}) {
		t.Error("connections without an address have no budget of their own")
	}
}

func TestBudgetForgets(t *testing.T) {
	b := newBudget(Limits{Addrs: 8, Failures: 1, Refill: time.Hour}, (&testClock{}).now)
	keep := addrOf("10.0.0.0")
	b.begin(stranger(keep))
	for i := 1; i < 1000; i++ {
		b.fails(netip.AddrFrom4([4]byte{10, byte(i), byte(i >> 8), byte(i)}))
		for w, l := range b.levels {
			if len(l.entries) > 8 || l.order.Len() != len(l.entries) {
				t.Fatalf("%d networks of %d bits remembered, %d in order", len(l.entries), w.bits, l.order.Len())
			}
		}
	}
	if b.levels[widths4[0]].entries[netip.PrefixFrom(keep, 32)] == nil {
		t.Error("an address with an admission under way was forgotten")
	}
}

// Many addresses of one network do not make a failure of the network forgotten.
func TestBudgetRemembersTheNetwork(t *testing.T) {
	b := newBudget(Limits{Addrs: 8, Failures: 1, Refill: time.Hour}, (&testClock{}).now)
	failed := 0
	for i := range 1000 {
		if b.fails(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 1, byte(i >> 8), byte(i)})) {
			failed++
		}
	}
	if failed != 8 {
		t.Errorf("%d failures from one /48, want 8", failed)
	}
}

func TestProvenIsBounded(t *testing.T) {
	var p proven
	first := identity.ID{0, 0xff}
	p.add(first)
	for i := range maxProven - 1 {
		p.add(identity.ID{byte(i), byte(i >> 8)})
	}
	p.add(first)
	p.add(identity.ID{1, 2, 3})
	if len(p.ids) != maxProven || p.order.Len() != maxProven || !p.has(first) || p.has(identity.ID{0, 0}) {
		t.Errorf("%d remembered, %d in order; the first: %v", len(p.ids), p.order.Len(), p.has(first))
	}
}
