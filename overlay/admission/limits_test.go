package admission

import (
	"net/netip"
	"testing"
	"time"
)

type testClock struct{ t time.Time }

func (c *testClock) now() time.Time { return c.t }

func TestBudgetFailures(t *testing.T) {
	clock := &testClock{time.Unix(0, 0)}
	b := newBudget(Limits{Failures: 3, Refill: time.Second}, clock.now)
	bad, good := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	fail := func() bool {
		if !b.begin(bad) {
			return false
		}
		b.end(bad, true)
		return true
	}
	for i := range 3 {
		if !fail() {
			t.Fatalf("refused at failure %d of 3", i+1)
		}
	}
	if b.allowed(bad) || fail() {
		t.Error("a fourth failure was allowed")
	}
	if !b.allowed(good) {
		t.Error("another address pays for it")
	}
	clock.t = clock.t.Add(time.Second)
	if !b.allowed(bad) || !fail() || fail() {
		t.Error("one failure is forgiven in a second, not more")
	}
	clock.t = clock.t.Add(time.Hour)
	for i := range 4 {
		if fail() != (i < 3) {
			t.Errorf("after an hour, failure %d", i+1)
		}
	}
}

func TestBudgetSuccessIsFree(t *testing.T) {
	b := newBudget(Limits{Failures: 1, Refill: time.Hour}, (&testClock{}).now)
	site := netip.MustParseAddr("192.0.2.1")
	for range 1000 { // a site behind one NAT
		if !b.begin(site) {
			t.Fatal("refused without a failure")
		}
		b.end(site, false)
	}
}

func TestBudgetPending(t *testing.T) {
	b := newBudget(Limits{Pending: 3, PendingPerAddr: 2}, (&testClock{}).now)
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for i, tc := range []struct {
		addr netip.Addr
		want bool
	}{{one, true}, {one, true}, {one, false}, {two, true}, {two, false}} {
		if got := b.begin(tc.addr); got != tc.want {
			t.Errorf("admission %d: %v, want %v", i, got, tc.want)
		}
	}
	b.end(one, false)
	if !b.begin(two) {
		t.Error("what was given back is not free")
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
			got := bucketOf(netip.MustParseAddr(tc.a)) == bucketOf(netip.MustParseAddr(tc.b))
			if got != tc.same {
				t.Errorf("one budget: %v, want %v", got, tc.same)
			}
		})
	}
}

func TestBudgetForgets(t *testing.T) {
	b := newBudget(Limits{Addrs: 8, Failures: 1, Refill: time.Hour}, (&testClock{}).now)
	keep := netip.AddrFrom4([4]byte{10, 0, 0, 0})
	b.begin(keep)
	for i := 1; i < 1000; i++ {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		if b.begin(addr) {
			b.end(addr, true)
		}
		if len(b.entries) > 8 || b.order.Len() != len(b.entries) {
			t.Fatalf("%d addresses remembered, %d in order", len(b.entries), b.order.Len())
		}
	}
	if b.entries[bucketOf(keep)] == nil {
		t.Error("an address with an admission under way was forgotten")
	}
}
