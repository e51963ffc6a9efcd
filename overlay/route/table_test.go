package route

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/rights"
	"github.com/kairos-io/kairos/overlay/wire"
)

var (
	network = identity.Network{V4: netip.MustParsePrefix("10.77.0.0/16"), V6: netip.MustParsePrefix("fd77::/64")}
	accept  = Accept{NetworkID: "home", Range: netip.MustParsePrefix("10.42.0.0/16")}
)

// id returns an ID that orders by n.
func id(n byte) identity.ID { return identity.ID(bytes.Repeat([]byte{n}, 32)) }

func machine(n byte, cluster string) rights.Rights {
	return rights.OfWords(rights.Words{ID: id(n), Kind: wire.KindNode, NetworkID: cluster})
}

func member(n byte, addr string, prefixes ...string) Entry {
	e := Entry{ID: id(n), Rights: machine(n, "home"), Addrs: []netip.Addr{netip.MustParseAddr(addr), network.V6Addr(id(n))}}
	for _, p := range prefixes {
		e.Prefixes = append(e.Prefixes, netip.MustParsePrefix(p))
	}
	return e
}

func pinned(e Entry) Entry {
	e.Pinned = true
	return e
}

func build(members ...Entry) *Table {
	return Build(Input{Self: id(1), Network: network, Members: members, Accept: accept})
}

func TestLookup(t *testing.T) {
	table := build(
		member(1, "10.77.0.1", "10.42.0.0/24"),
		member(2, "10.77.0.2", "10.42.1.0/24"),
		member(3, "10.77.0.3", "10.42.3.0/25", "10.42.3.128/25"),
		member(4, "10.77.0.4"),
	)
	for _, c := range []struct {
		dst  string
		want byte // 0: nobody
	}{
		{"10.77.0.1", 1}, {"10.77.0.2", 2}, {"10.77.0.4", 4}, {"10.77.0.5", 0},
		{"10.42.0.0", 1}, {"10.42.0.255", 1}, {"10.42.1.0", 2}, {"10.42.1.255", 2},
		{"10.42.2.0", 0}, {"10.42.2.255", 0}, {"10.42.3.0", 3}, {"10.42.3.127", 3}, {"10.42.3.128", 3}, {"10.42.4.0", 0},
		{"10.41.255.255", 0}, {"0.0.0.0", 0}, {"255.255.255.255", 0}, {"8.8.8.8", 0},
		{network.V6Addr(id(2)).String(), 2}, {network.V6Addr(id(9)).String(), 0},
		{"::", 0}, {"ff02::1", 0}, {"fe80::1", 0},
		{"::ffff:10.77.0.1", 0}, {"::ffff:10.42.0.1", 0},
	} {
		got, ok := table.Lookup(netip.MustParseAddr(c.dst))
		want := identity.ID{}
		if c.want != 0 {
			want = id(c.want)
		}
		if got != want || ok != (c.want != 0) {
			t.Errorf("%s: %s %v, want member %d", c.dst, got.Short(), ok, c.want)
		}
	}
	zoned := network.V6Addr(id(2)).WithZone("eth0")
	if _, ok := table.Lookup(zoned); ok {
		t.Error("a zone makes a second name for an address")
	}
	if _, ok := table.Lookup(netip.Addr{}); ok {
		t.Error("somebody is behind the invalid address")
	}
}

func TestSourceOK(t *testing.T) {
	table := build(
		member(1, "10.77.0.1", "10.42.0.0/24"),
		member(2, "10.77.0.2", "10.42.1.0/24"),
		member(3, "10.77.0.3", "10.42.1.128/25"), // loses to 2
	)
	for _, c := range []struct {
		from byte
		src  string
		want bool
	}{
		{2, "10.77.0.2", true}, {2, "10.42.1.9", true}, {2, network.V6Addr(id(2)).String(), true},
		{2, "10.77.0.1", false}, {2, "10.42.0.9", false}, {2, "10.77.0.3", false}, {2, network.V6Addr(id(1)).String(), false},
		{2, "192.0.2.1", false}, {2, "127.0.0.1", false}, {2, "0.0.0.0", false}, {2, "::", false}, {2, "::ffff:10.77.0.2", false},
		{3, "10.42.1.200", false}, {3, "10.77.0.3", true},
		{9, "10.77.0.2", false}, {9, "10.77.0.9", false}, {0, "10.77.0.9", false},
	} {
		if got := table.SourceOK(id(c.from), netip.MustParseAddr(c.src)); got != c.want {
			t.Errorf("member %d from %s: %v", c.from, c.src, got)
		}
	}
	if table.SourceOK(identity.ID{}, netip.MustParseAddr("10.77.9.9")) {
		t.Error("nobody may send from where nobody is")
	}
}

func TestConflicts(t *testing.T) {
	conflict := func(prefix string, winner, loser byte) Conflict {
		return Conflict{netip.MustParsePrefix(prefix), id(winner), id(loser)}
	}
	for _, c := range []struct {
		name    string
		members []Entry
		want    []Conflict
	}{
		{"none", []Entry{member(1, "10.77.0.1", "10.42.0.0/24"), member(2, "10.77.0.2", "10.42.1.0/24")}, nil},
		{"lower id wins", []Entry{member(2, "10.77.0.1"), member(1, "10.77.0.1")}, []Conflict{conflict("10.77.0.1/32", 1, 2)}},
		{"pinned wins", []Entry{pinned(member(2, "10.77.0.1")), member(1, "10.77.0.1")}, []Conflict{conflict("10.77.0.1/32", 2, 1)}},
		{"both pinned", []Entry{pinned(member(2, "10.77.0.1")), pinned(member(1, "10.77.0.1"))}, []Conflict{conflict("10.77.0.1/32", 1, 2)}},
		{"same prefix", []Entry{member(1, "10.77.0.1", "10.42.0.0/24"), member(2, "10.77.0.2", "10.42.0.0/24")},
			[]Conflict{conflict("10.42.0.0/24", 1, 2)}},
		{"longer prefix steals nothing", []Entry{member(1, "10.77.0.1", "10.42.0.0/24"), member(2, "10.77.0.2", "10.42.0.64/26")},
			[]Conflict{conflict("10.42.0.64/26", 1, 2)}},
		{"first address of a prefix", []Entry{member(1, "10.77.0.1", "10.42.0.0/24"), member(2, "10.77.0.2", "10.42.0.0/32")},
			[]Conflict{conflict("10.42.0.0/32", 1, 2)}},
		{"last address of a prefix", []Entry{member(1, "10.77.0.1", "10.42.0.0/24"), member(2, "10.77.0.2", "10.42.0.255/32")},
			[]Conflict{conflict("10.42.0.255/32", 1, 2)}},
		{"shorter prefix steals nothing", []Entry{member(1, "10.77.0.1", "10.42.0.0/24"), member(2, "10.77.0.2", "10.42.4.0/24"),
			member(3, "10.77.0.3", "10.42.0.0/16")},
			[]Conflict{conflict("10.42.0.0/16", 1, 3), conflict("10.42.0.0/16", 2, 3)}},
		{"pinned prefix wins", []Entry{member(1, "10.77.0.1", "10.42.0.0/16"), pinned(member(2, "10.77.0.2", "10.42.0.0/24"))},
			[]Conflict{conflict("10.42.0.0/16", 2, 1)}},
		{"said twice by one", []Entry{member(1, "10.77.0.1", "10.42.0.0/24", "10.42.0.0/24", "10.42.0.0/25")}, nil},
		{"same member twice", []Entry{member(1, "10.77.0.1"), member(1, "10.77.0.1")}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := build(c.members...)
			if !reflect.DeepEqual(table.Conflicts(), c.want) {
				t.Errorf("conflicts %v, want %v", table.Conflicts(), c.want)
			}
			for _, lost := range c.want {
				got, _ := table.Lookup(lost.Prefix.Addr())
				if lost.Prefix.IsSingleIP() && got != lost.Winner {
					t.Errorf("%s went to %s", lost.Prefix, got.Short())
				}
			}
			if len(table.Refused()) != 0 {
				t.Errorf("refused %v", table.Refused())
			}
		})
	}
}

// TestPrefixInUseIsNotTaken: not even by a pinned member of lower ID.
func TestPrefixInUseIsNotTaken(t *testing.T) {
	victim := member(5, "10.77.0.5", "10.42.1.0/24")
	inUse := build(victim)
	pod := netip.MustParseAddr("10.42.1.9")
	for _, c := range []struct {
		name    string
		members []Entry
		owner   byte
	}{
		{"the same prefix", []Entry{victim, pinned(member(2, "10.77.0.2", "10.42.1.0/24"))}, 5},
		{"the whole range", []Entry{victim, pinned(member(2, "10.77.0.2", "10.42.0.0/16"))}, 5},
		{"a part", []Entry{victim, pinned(member(2, "10.77.0.2", "10.42.1.0/25"))}, 5},
		{"given up", []Entry{member(5, "10.77.0.5"), member(2, "10.77.0.2", "10.42.1.0/24")}, 2},
		{"its owner is gone", []Entry{member(2, "10.77.0.2", "10.42.1.0/24")}, 2},
		{"another prefix of the owner is no older", []Entry{member(5, "10.77.0.5", "10.42.0.0/23"), member(2, "10.77.0.2", "10.42.1.0/24")}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := Build(Input{Self: id(1), Network: network, Members: c.members, Accept: accept, Before: inUse})
			if got, _ := table.Lookup(pod); got != id(c.owner) {
				t.Errorf("%s went to %s", pod, got.Short())
			}
		})
	}
	foreign := victim
	foreign.Rights = machine(5, "other")
	table := Build(Input{Self: id(1), Network: network, Members: []Entry{foreign}, Accept: accept, Before: inUse})
	if _, ok := table.Lookup(pod); ok {
		t.Error("a prefix was kept that is not accepted any more")
	}
}

// After a restart there is no table from before, but what was kept of it: the
// member that is heard first must not win what another had.
func TestPrefixIsKeptOverARestart(t *testing.T) {
	victim, thief := member(5, "10.77.0.5", "10.42.1.0/24"), pinned(member(2, "10.77.0.2", "10.42.1.0/24"))
	kept := build(victim, member(6, "10.77.0.6", "10.42.6.0/24")).Prefixes()
	pod := netip.MustParseAddr("10.42.1.9")
	in := Input{Self: id(1), Network: network, Accept: accept, Kept: kept}
	for _, c := range []struct {
		name    string
		members []Entry
		owner   byte
	}{
		{"both are heard", []Entry{victim, thief}, 5},
		{"the thief is heard first", []Entry{thief}, 5},
		{"the thief takes a part, alone", []Entry{member(2, "10.77.0.2", "10.42.1.0/25")}, 5},
		{"the thief takes the whole range, alone", []Entry{member(2, "10.77.0.2", "10.42.0.0/16")}, 5},
		{"the owner has come without it", []Entry{member(5, "10.77.0.5"), thief}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			in.Members = c.members
			table := Build(in)
			if got, _ := table.Lookup(pod); got != id(c.owner) {
				t.Errorf("%s went to %s", pod, got.Short())
			}
			if !table.SourceOK(id(c.owner), pod) {
				t.Error("its owner may not send from it")
			}
			next := in
			next.Before = table // of one turn to the next
			if got, _ := Build(next).Lookup(pod); got != id(c.owner) {
				t.Errorf("one turn later %s went to %s", pod, got.Short())
			}
		})
	}
	in.Members, in.Accept = []Entry{thief}, Accept{}
	if _, ok := Build(in).Lookup(pod); ok {
		t.Error("a kept prefix is believed that is not accepted any more")
	}
}

func TestRefused(t *testing.T) {
	foreign := member(2, "10.77.0.2", "10.42.1.0/24")
	foreign.Rights = machine(2, "other")
	laptop := member(2, "10.77.0.2", "10.42.1.0/24")
	laptop.Rights = rights.OfWords(rights.Words{ID: id(2), Kind: wire.KindBridge, NetworkID: "home"})
	thief := member(2, "10.77.0.2")
	thief.Addrs = append(thief.Addrs, network.V6Addr(id(1)))
	odd := member(2, "10.77.0.2")
	odd.Addrs = append(odd.Addrs, netip.Addr{}, netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("::ffff:10.77.0.9"))
	unmasked := member(2, "10.77.0.2")
	unmasked.Prefixes = []netip.Prefix{{}, netip.MustParsePrefix("10.42.1.1/24")}
	wide := Accept{NetworkID: "home", Range: netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct {
		name   string
		in     Input
		reason string
		count  int
	}{
		{"address of the internet", Input{Network: network, Members: []Entry{member(2, "8.8.8.8")}}, ReasonOutside, 1},
		{"no network", Input{Members: []Entry{member(2, "10.77.0.2")}}, ReasonOutside, 2},
		{"IPv6 address of another", Input{Network: network, Members: []Entry{thief}}, ReasonNotOwn, 1},
		{"odd addresses", Input{Network: network, Members: []Entry{odd}}, ReasonForm, 3},
		{"prefix behind a laptop", Input{Network: network, Members: []Entry{laptop}, Accept: accept}, ReasonNetworkID, 1},
		{"prefix of another cluster", Input{Network: network, Members: []Entry{foreign}, Accept: accept}, ReasonNetworkID, 1},
		{"prefix outside", Input{Network: network, Members: []Entry{member(2, "10.77.0.2", "10.43.0.0/24", "0.0.0.0/0", "10.0.0.0/8", "10.42.0.0/15", "fd00::/48")},
			Accept: accept}, ReasonRange, 5},
		{"prefix over the overlay", Input{Network: network, Members: []Entry{member(2, "10.77.0.2", "10.77.0.0/24", "10.76.0.0/15")}, Accept: wide}, ReasonOverlay, 2},
		{"malformed prefixes", Input{Network: network, Members: []Entry{unmasked}, Accept: accept}, ReasonForm, 2},
		{"nothing accepted", Input{Network: network, Members: []Entry{member(2, "10.77.0.2", "10.42.0.0/24")}}, ReasonNetworkID, 1},
		{"no range", Input{Network: network, Members: []Entry{member(2, "10.77.0.2", "10.42.0.0/24")}, Accept: Accept{NetworkID: "home"}}, ReasonRange, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := Build(c.in)
			if len(table.Refused()) != c.count {
				t.Errorf("%d refused, want %d: %v", len(table.Refused()), c.count, table.Refused())
			}
			for _, r := range table.Refused() {
				if r.Reason != c.reason || r.ID != id(2) {
					t.Errorf("refused %v, want %s", r, c.reason)
				}
				if r.Prefix.IsValid() && r.Reason != ReasonNotOwn && table.SourceOK(id(2), r.Prefix.Addr()) {
					t.Errorf("%v may be a source nevertheless", r.Prefix)
				}
			}
			if table.SourceOK(id(2), network.V6Addr(id(1))) {
				t.Error("took another's IPv6 address")
			}
		})
	}
}

// Whatever the order in which a node heard of the others, the table is the same.
func TestOrderDoesNotMatter(t *testing.T) {
	var members []Entry
	for n := byte(1); n <= 20; n++ {
		m := member(n, netip.AddrFrom4([4]byte{10, 77, 0, n % 7}).String(),
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, n % 5, 0}), 24).String())
		m.Pinned = n%3 == 0
		members = append(members, m)
	}
	want := build(members...)
	if len(want.Conflicts()) == 0 {
		t.Fatal("the test has no conflicts")
	}
	for range 50 {
		rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		if got := build(members...); !reflect.DeepEqual(got, want) {
			t.Fatal("another order, another table")
		}
	}
}

// The table agrees with the obvious way to look: through all that is owned.
func TestOwnedAgrees(t *testing.T) {
	table := build(
		member(1, "10.77.0.1", "10.42.0.0/24"), member(2, "10.77.0.2", "10.42.2.0/23", "10.42.7.7/32"), member(3, "10.77.255.3", "10.42.128.0/17"),
	)
	owned := table.Owned()
	if len(owned) != 10 {
		t.Fatalf("%d destinations: %v", len(owned), owned)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		addr := netip.AddrFrom4([4]byte{10, []byte{41, 42, 42, 43, 77}[rng.IntN(5)], byte(rng.Uint32()), byte(rng.Uint32())})
		var want identity.ID
		for _, o := range owned {
			if o.Prefix.Contains(addr) {
				want = o.ID
			}
		}
		if got, ok := table.Lookup(addr); got != want || ok == want.IsZero() {
			t.Fatalf("%s: %s, want %s", addr, got.Short(), want.Short())
		}
	}
}

func TestNilTable(t *testing.T) {
	var table *Table
	if _, ok := table.Lookup(netip.MustParseAddr("10.77.0.1")); ok || !table.Self().IsZero() ||
		table.Conflicts() != nil || table.Refused() != nil || table.Owned() != nil {
		t.Error("the nil table knows somebody")
	}
}

func TestIPv6Prefixes(t *testing.T) {
	in := Input{Network: network, Accept: Accept{NetworkID: "home", Range: netip.MustParsePrefix("fd42::/48")},
		Members: []Entry{member(1, "10.77.0.1", "fd42:0:0:1::/64"), member(2, "10.77.0.2", "fd42:0:0:2::/64")}}
	table := Build(in)
	for addr, want := range map[string]byte{"fd42:0:0:1::": 1, "fd42::1:ffff:ffff:ffff:ffff": 1, "fd42:0:0:2::1": 2} {
		if got, ok := table.Lookup(netip.MustParseAddr(addr)); !ok || got != id(want) {
			t.Errorf("%s: %s %v", addr, got.Short(), ok)
		}
	}
	for _, addr := range []string{"fd42::", "fd42:0:0:3::", "fd42:0:0:1::1%eth0"} {
		if _, ok := table.Lookup(netip.MustParseAddr(addr)); ok {
			t.Errorf("somebody is behind %s", addr)
		}
	}
}

func FuzzBuild(f *testing.F) {
	f.Add([]byte{1, 0, 1, 24, 0, 2, 1, 1, 16, 3})
	f.Add([]byte{9, 1, 0, 32, 1, 8, 0, 0, 0, 0, 7, 1, 3, 25, 128})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var members []Entry
		for ; len(raw) >= 5 && len(members) < 64; raw = raw[5:] {
			prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, raw[4], 0}), int(raw[3]%33)).Masked()
			m := member(raw[0], netip.AddrFrom4([4]byte{10, 77, 0, raw[2]}).String(), prefix.String())
			m.Pinned = raw[1]&1 != 0
			members = append(members, m)
		}
		table := build(members...)
		for i, o := range table.Owned() {
			if !table.SourceOK(o.ID, o.Prefix.Addr()) || !table.SourceOK(o.ID, lastAddr(o.Prefix)) {
				t.Fatalf("%v is not owned by its owner", o)
			}
			for _, other := range table.Owned()[:i] {
				if other.Prefix.Overlaps(o.Prefix) {
					t.Fatalf("%v and %v overlap", other, o)
				}
			}
		}
	})
}
