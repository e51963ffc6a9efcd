package route

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/rights"
	"github.com/kairos-io/kairos/overlay/wire"
)

// crowd is a mesh of n members with an address and a pod range each.
func crowd(n int) (*Table, []Entry) {
	in := Input{Self: id(1), Network: network, Accept: accept}
	for i := range n {
		var who identity.ID
		binary.BigEndian.PutUint32(who[:], uint32(i+1))
		m := Entry{ID: who, Rights: rights.OfWords(rights.Words{ID: who, Kind: wire.KindNode, NetworkID: "home"}),
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)}), network.V6Addr(who)}}
		if i < 256 {
			m.Prefixes = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, byte(i), 0}), 24)}
		}
		in.Members = append(in.Members, m)
	}
	return Build(in), in.Members
}

func lookups(table *Table, m Entry) bool {
	pod := m.Prefixes[0].Addr().Next()
	got, ok := table.Lookup(m.Addrs[0])
	_, missed := table.Lookup(netip.AddrFrom4([4]byte{192, 0, 2, 1}))
	return ok && got == m.ID && !missed && table.SourceOK(m.ID, m.Addrs[1]) && table.SourceOK(m.ID, pod)
}

func TestLookupDoesNotAllocate(t *testing.T) {
	table, members := crowd(1000)
	if n := testing.AllocsPerRun(1000, func() {
		if !lookups(table, members[77]) {
			t.Fatal("wrong answer")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	table, members := crowd(1000)
	for name, addr := range map[string]netip.Addr{
		"v4": members[77].Addrs[0], "v6": members[77].Addrs[1], "prefix": members[77].Prefixes[0].Addr().Next(),
		"unknown": netip.AddrFrom4([4]byte{192, 0, 2, 1}),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.Lookup(addr)
			}
		})
	}
}

func BenchmarkSourceOK(b *testing.B) {
	table, members := crowd(1000)
	b.ReportAllocs()
	for b.Loop() {
		if !table.SourceOK(members[77].ID, members[77].Addrs[0]) {
			b.Fatal("wrong answer")
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	_, members := crowd(4096)
	in := Input{Self: id(1), Network: network, Accept: accept, Members: members}
	for b.Loop() {
		Build(in)
	}
}
