package discovery

import (
	"crypto/rand"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/secret"
)

// testClock is a machine's clock that a test moves.
type testClock struct{ t time.Time }

func (c *testClock) now() time.Time          { return c.t }
func (c *testClock) advance(d time.Duration) { c.t = c.t.Add(d) }
func clockAt(year int) *testClock {
	return &testClock{time.Date(year, 3, 4, 5, 6, 7, 0, time.UTC)}
}

// testEar is the ear of a new member of network n.
func testEar(t testing.TB, n byte, clock *testClock) *ear {
	t.Helper()
	var id identity.ID
	if _, err := rand.Read(id[:]); err != nil {
		t.Fatal(err)
	}
	e, err := newEar(id, []secret.Key{secret.NewKey([32]byte{n})}, clock.now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var (
	lanAddr = netip.MustParseAddr("192.0.2.1")
	lan     = []netip.AddrPort{netip.AddrPortFrom(lanAddr, 4171), netip.MustParseAddrPort("[2001:db8::1]:4171")}
)

// spoken is what an ear says, as it arrives.
func spoken(t testing.TB, e *ear) []byte {
	t.Helper()
	msgs, err := e.say(lan)
	if err != nil {
		t.Fatal(err)
	}
	_, sealed, err := parse(msgs[0])
	if err != nil || len(sealed) != 1 {
		t.Fatalf("%d announcements, %v", len(sealed), err)
	}
	return sealed[0]
}

func hears(e *ear, sealed []byte) bool {
	_, ok := e.believe(sealed, lanAddr)
	return ok
}

func TestMembersHearEachOther(t *testing.T) {
	clock := clockAt(2026)
	a, b, stranger := testEar(t, 1, clock), testEar(t, 1, clock), testEar(t, 2, clock)
	got, ok := b.believe(spoken(t, a), lanAddr)
	if !ok || got.ID != a.self || !slices.Equal(got.Addrs, lan) {
		t.Errorf("heard %+v, %v", got, ok)
	}
	if hears(stranger, spoken(t, a)) || hears(a, spoken(t, stranger)) {
		t.Error("two networks hear each other")
	}
	if hears(a, spoken(t, a)) {
		t.Error("a node hears itself")
	}
	said := spoken(t, a)
	for i := range said {
		forged := slices.Clone(said)
		forged[i] ^= 1
		if hears(b, forged) {
			t.Fatalf("a bit flipped in byte %d is believed", i)
		}
	}
}

// While doors change, a node speaks under both keys and hears both.
func TestTwoKeys(t *testing.T) {
	clock := clockAt(2026)
	both := testEar(t, 1, clock)
	both.keys = append(both.keys, testEar(t, 2, clock).keys...)
	msgs, err := both.say(lan)
	if err != nil || len(msgs) != 2 {
		t.Fatalf("%d messages, %v", len(msgs), err)
	}
	for i, n := range []byte{1, 2} {
		one := testEar(t, n, clock)
		_, sealed, err := parse(msgs[i])
		if err != nil || !hears(one, sealed[0]) || !hears(both, spoken(t, one)) {
			t.Errorf("key %d: %v", n, err)
		}
	}
}

// What is said is believed in its window and the two next to it.
func TestRecordingsEnd(t *testing.T) {
	for _, tc := range []struct {
		after time.Duration
		want  bool
	}{
		{0, true}, {windowLength, true}, {2*windowLength - time.Nanosecond, false}, {2 * windowLength, false}, {365 * 24 * time.Hour, false},
	} {
		theirs, ours := clockAt(2026), clockAt(2026)
		theirs.t = theirs.t.Truncate(windowLength).Add(windowLength - time.Second) // the end of a window
		ours.t = theirs.t.Add(tc.after)
		said := spoken(t, testEar(t, 1, theirs))
		if got := hears(testEar(t, 1, ours), said); got != tc.want {
			t.Errorf("%s later: believed %v, want %v", tc.after, got, tc.want)
		}
	}
}

// Two machines meet whatever their clocks say: one asks, the other answers, and whoever
// is behind follows. A clock that is put right later does no harm either.
func TestWrongClocks(t *testing.T) {
	for _, tc := range []struct {
		name string
		a, b *testClock
	}{
		{"years apart", clockAt(2026), clockAt(2031)},
		{"the beginning of time", clockAt(2026), &testClock{time.Unix(0, 0)}},
		{"before it", clockAt(2026), clockAt(1900)},
		{"the end of it", clockAt(2026), clockAt(math.MaxInt32)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, b := testEar(t, 1, tc.a), testEar(t, 1, tc.b)
			meet := func(when string) {
				t.Helper()
				// Each answers the other's question; one of the answers is believed at
				// once, and from then on both are.
				if first, second := hears(a, spoken(t, b)), hears(b, spoken(t, a)); !first && !second {
					t.Errorf("%s: neither hears the other", when)
				}
				if !hears(a, spoken(t, b)) || !hears(b, spoken(t, a)) {
					t.Errorf("%s: they do not agree on the time", when)
				}
			}
			meet("at first")
			tc.a.advance(100 * windowLength)
			tc.b.advance(100 * windowLength)
			meet("later")
			tc.a.t, tc.b.t = clockAt(2027).t, clockAt(2027).t
			meet("put right")
			a = testEar(t, 1, tc.a)
			meet("after one restarted")
		})
	}
}

// A window that was reached is not left because a clock goes back, and goes on without it.
func TestWindowsGoOn(t *testing.T) {
	clock := clockAt(2026)
	w := windows{now: clock.now}
	start := w.current()
	if !w.accept(start+1000) || w.current() != start+1000 {
		t.Errorf("%d, want %d of who is ahead", w.current(), start+1000)
	}
	clock.advance(3 * windowLength)
	if got := w.current(); got != start+1003 {
		t.Errorf("three windows later %d, want %d", got, start+1003)
	}
	clock.t = clockAt(1970).t
	if got := w.current(); got != start+1003 {
		t.Errorf("the clock went back: %d, want %d", got, start+1003)
	}
	if w.accept(start+1001) || !w.accept(start+1002) || !w.accept(math.MaxUint32) || !w.accept(math.MaxUint32) {
		t.Error("wrong windows are believed")
	}
}

// A zone in an announced address was once pasted into the text of another address, and
// led to services of the node's own machine. Now no text travels, and no zone.
func TestAnnouncedAddresses(t *testing.T) {
	for text, want := range map[string]bool{
		"192.0.2.1:4171":                   true,
		"169.254.1.1:4171":                 true,
		"[2001:db8::1]:4171":               true,
		"[fd00::1]:4171":                   true,
		"[::ffff:192.0.2.1]:4171":          true,
		"192.0.2.1:0":                      false,
		"0.0.0.0:4171":                     false,
		"[::]:4171":                        false,
		"127.0.0.1:22":                     false,
		"[::1]:22":                         false,
		"[::ffff:127.0.0.1]:22":            false,
		"224.0.0.251:5353":                 false,
		"[ff02::fb]:5353":                  false,
		"255.255.255.255:4171":             false,
		"[fe80::1]:4171":                   false,
		"[2001:db8::1%eth0]:4171":          false,
		"[::1%lo]:22":                      false,
		"[fe80::1%lo/ip6/::1/tcp/22]:4171": false,
	} {
		addr := netip.MustParseAddrPort(text)
		got, ok := callable(addr)
		if ok != want || ok && got != netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()) {
			t.Errorf("%s: %s, %v; want %v", text, got, ok, want)
		}
		// Whoever makes an announcement by hand gets no further.
		raw := addr.Addr().WithZone("").As16()
		list := append(raw[:], byte(addr.Port()>>8), byte(addr.Port()))
		if got := parseAddrs(list); addr.Addr().Zone() == "" && len(got) != map[bool]int{true: 1}[want] {
			t.Errorf("%s announced: %v", text, got)
		}
	}
}

func TestAnnouncementsOfLaterVersions(t *testing.T) {
	id := make([]byte, 32)
	id[0] = 1
	base := slices.Clip(appendField(nil, tagID, id))
	many := make([]byte, 0, 100*addrSize)
	for i := range 100 {
		many = append(many, make([]byte, 10)...)
		many = append(many, 0xff, 0xff, 192, 0, 2, byte(i), 1, 1)
	}
	for _, tc := range []struct {
		name  string
		raw   []byte
		ok    bool
		addrs int
	}{
		{"an ID alone", base, true, 0},
		{"padding", append(base, make([]byte, 50)...), true, 0},
		{"an unknown field", appendField(base, 0x7f, []byte("later")), true, 0},
		{"an unknown critical field", appendField(base, 0x80, nil), false, 0},
		{"more addresses than are read", appendField(base, tagAddrs, many), true, maxListed},
		{"half an address", appendField(base, tagAddrs, make([]byte, addrSize+1)), false, 0},
		{"a short ID", appendField(nil, tagID, id[:31]), false, 0},
		{"no ID", appendField(nil, tagWindow, make([]byte, 4)), false, 0},
		{"out of order", append(appendField(nil, tagAddrs, nil), base...), false, 0},
		{"a cut head", append(base, 9, 0), false, 0},
		{"a cut value", append(base, 9, 0, 2, 1), false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := parseAnnouncement(tc.raw)
			if (err == nil) != tc.ok || len(a.Addrs) != tc.addrs {
				t.Errorf("%d addresses, %v; want %d, ok %v", len(a.Addrs), err, tc.addrs, tc.ok)
			}
		})
	}
}

// Whoever says again what members said is not passed on more often than they would be,
// and does not keep others from being heard.
func TestRepeatedAnnouncements(t *testing.T) {
	clock := clockAt(2026)
	a, b := testEar(t, 1, clock), testEar(t, 1, clock)
	said := spoken(t, a)
	replay := netip.MustParseAddr("192.0.2.66")
	passed := 0
	for range 1000 {
		if _, ok := b.believe(said, replay); ok {
			passed++
		}
	}
	if passed != paceBurst {
		t.Errorf("%d of 1000 announcements at once were passed on, want %d", passed, paceBurst)
	}
	if !hears(b, said) {
		t.Error("a member is not heard because of another machine")
	}
	clock.advance(3 * paceRefill)
	for range 10 {
		if _, ok := b.believe(said, replay); ok {
			passed++
		}
	}
	if passed != paceBurst+3 {
		t.Errorf("%d were passed on after three more seconds, want %d", passed, paceBurst+3)
	}
	for i := range 3 * maxSources {
		b.believe(said, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	if len(b.pace.sources) != maxSources || b.pace.order.Len() != maxSources {
		t.Errorf("%d sources remembered, %d in order", len(b.pace.sources), b.pace.order.Len())
	}
	stranger := testEar(t, 2, clock)
	before := len(b.pace.sources)
	b.believe(spoken(t, stranger), netip.MustParseAddr("198.51.100.1"))
	if _, ok := b.pace.sources[netip.MustParseAddr("198.51.100.1")]; ok || len(b.pace.sources) != before {
		t.Error("what is no member's costs something to remember")
	}
}

// The address that an announcement came from comes first, if the member named it: whoever
// says it again from elsewhere is not called.
func TestSourceOfAnnouncement(t *testing.T) {
	clock := clockAt(2026)
	a, b := testEar(t, 1, clock), testEar(t, 1, clock)
	var got []netip.AddrPort
	m := &MDNS{
		ear:    b,
		Usable: func(addr netip.Addr) bool { return addr != netip.MustParseAddr("10.1.2.3") },
		Found:  func(_ identity.ID, addrs []netip.AddrPort) { got = addrs },
	}
	at := func(texts ...string) (out []netip.AddrPort) {
		for _, text := range texts {
			out = append(out, netip.MustParseAddrPort(text))
		}
		return out
	}
	for _, tc := range []struct {
		name, from string
		addrs      []netip.AddrPort
		want       []netip.AddrPort
	}{
		{"it is the second", "192.0.2.2", at("192.0.2.1:1", "192.0.2.2:1"), at("192.0.2.2:1", "192.0.2.1:1")},
		{"it is another machine's", "192.0.2.66", at("192.0.2.1:1", "192.0.2.2:1"), at("192.0.2.1:1", "192.0.2.2:1")},
		{"by link-local IPv6", "fe80::1%eth0", at("192.0.2.1:1"), at("192.0.2.1:1")},
		{"in disguise", "::ffff:192.0.2.1", at("[2001:db8::1]:1", "192.0.2.1:1"), at("192.0.2.1:1", "[2001:db8::1]:1")},
		{"the overlay's own", "192.0.2.1", at("10.1.2.3:1"), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got = nil
			msgs, err := a.say(tc.addrs)
			if err != nil {
				t.Fatal(err)
			}
			_, sealed, err := parse(msgs[0])
			if err != nil {
				t.Fatal(err)
			}
			m.heard(sealed[0], netip.MustParseAddr(tc.from))
			if !slices.Equal(got, tc.want) {
				t.Errorf("found at %v, want %v", got, tc.want)
			}
		})
	}
}

// With more addresses than fit, those that the neighbours reach come along.
func TestNearFirst(t *testing.T) {
	var addrs []netip.AddrPort
	for i := range 3 * maxListed {
		addrs = append(addrs, netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 17, byte(i), 1}), 4171))
	}
	addrs = append(addrs, lan...)
	clock := clockAt(2026)
	a, b := testEar(t, 1, clock), testEar(t, 1, clock)
	msgs, err := a.say(nearFirst(addrs, []netip.Addr{lanAddr}))
	if err != nil {
		t.Fatal(err)
	}
	_, sealed, err := parse(msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	got, ok := b.believe(sealed[0], lanAddr)
	if !ok || len(got.Addrs) != maxListed || got.Addrs[0] != lan[0] || got.Addrs[1] != addrs[0] {
		t.Errorf("heard %v (%v)", got.Addrs, ok)
	}
}

// FuzzAnnouncement checks that whatever a member of another version seals does no harm.
func FuzzAnnouncement(f *testing.F) {
	f.Add(appendField(appendField(nil, tagID, make([]byte, 32)), tagAddrs, make([]byte, addrSize)))
	f.Add(appendField(nil, 0x7f, nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := parseAnnouncement(raw)
		if err != nil {
			return
		}
		if a.ID.IsZero() || len(a.Addrs) > maxListed {
			t.Fatalf("announced %+v", a)
		}
		for _, addr := range a.Addrs {
			if got, ok := callable(addr); !ok || got != addr {
				t.Fatalf("announced %s", addr)
			}
		}
	})
}
