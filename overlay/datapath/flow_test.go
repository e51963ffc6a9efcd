package datapath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

// ipv4 and ipv6 make datagrams between two hosts.
func ipv4(edit func([]byte)) []byte {
	pkt := packet(netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.4.5.6"), 0, 100)
	copy(pkt[20:], []byte{0x9c, 0x40, 0x01, 0xbb})
	edit(pkt)
	return pkt
}

func ipv6(edit func([]byte)) []byte {
	pkt := packet(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 0, 100)
	copy(pkt[40:], []byte{0x9c, 0x40, 0x01, 0xbb})
	edit(pkt)
	return pkt
}

func set(at int, b ...byte) func([]byte) { return func(pkt []byte) { copy(pkt[at:], b) } }

// What the packets of a flow differ in does not take them apart; what flows differ in does.
func TestFlowsAreToldApart(t *testing.T) {
	plain := set(0)
	fragment := func(offset uint16, port byte) []byte {
		return ipv4(func(pkt []byte) {
			binary.BigEndian.PutUint16(pkt[6:], offset)
			pkt[21] = port
		})
	}
	for name, c := range map[string]struct {
		a, b []byte
		same bool
	}{
		"itself":                         {ipv4(plain), ipv4(plain), true},
		"itself over IPv6":               {ipv6(plain), ipv6(plain), true},
		"other data":                     {ipv4(plain), ipv4(set(28, 1, 2, 3)), true},
		"another number":                 {ipv4(plain), ipv4(set(4, 1, 2)), true},
		"may not be fragmented":          {ipv4(plain), ipv4(set(6, 0x40)), true},
		"another TOS and TTL":            {ipv4(plain), ipv4(func(p []byte) { p[1], p[8] = 4, 5 }), true},
		"another hop limit":              {ipv6(plain), ipv6(set(7, 1)), true},
		"another source":                 {ipv4(plain), ipv4(set(15, 9)), false},
		"another destination":            {ipv4(plain), ipv4(set(19, 9)), false},
		"another protocol":               {ipv4(plain), ipv4(set(9, 6)), false},
		"another source port":            {ipv4(plain), ipv4(set(21, 9)), false},
		"another port":                   {ipv4(plain), ipv4(set(23, 9)), false},
		"another source over IPv6":       {ipv6(plain), ipv6(set(23, 9)), false},
		"another destination over IPv6":  {ipv6(plain), ipv6(set(39, 9)), false},
		"another port over IPv6":         {ipv6(plain), ipv6(set(43, 9)), false},
		"ports behind options":           {ipv4(func(p []byte) { p[0], p[25] = 0x46, 1 }), ipv4(func(p []byte) { p[0], p[25] = 0x46, 2 }), false},
		"options of one flow":            {ipv4(func(p []byte) { p[0], p[21] = 0x46, 1 }), ipv4(func(p []byte) { p[0], p[21] = 0x46, 2 }), true},
		"the first fragment and another": {fragment(0x2000, 1), fragment(0x2010, 2), true},
		"the first and the last one":     {fragment(0x2000, 1), fragment(0x0020, 2), true},
		"fragments of IPv6":              {ipv6(func(p []byte) { p[6], p[41] = 44, 1 }), ipv6(func(p []byte) { p[6], p[41] = 44, 2 }), true},
		"pings":                          {ipv4(func(p []byte) { p[9], p[21] = 1, 1 }), ipv4(func(p []byte) { p[9], p[21] = 1, 2 }), true},
	} {
		for _, seed := range []uint64{0, 1, 1 << 63} {
			if same := hash(c.a, seed) == hash(c.b, seed); same != c.same {
				t.Errorf("%s: the same flow: %v", name, same)
			}
		}
	}
	if hash(ipv4(plain), 1) == hash(ipv4(plain), 2) {
		t.Error("who knows the code knows which flows share a queue")
	}
}

// Flows are spread over the queues.
func TestFlowsAreSpread(t *testing.T) {
	var count [fairFlows]int
	for port := range 64 * fairFlows {
		count[hash(of(port, 0, 100), 7)%fairFlows]++
	}
	for i, n := range count {
		if n < 16 || n > 160 {
			t.Errorf("queue %d has %d flows of %d", i, n, 64*fairFlows)
		}
	}
}

// Packets of any bytes and length have some flow, of what is in them alone.
func FuzzHash(f *testing.F) {
	for _, pkt := range [][]byte{ipv4(set(0)), ipv6(set(0)), ipv4(set(0, 0x4f)), ipv4(set(0, 0x40))} {
		f.Add(pkt)
		f.Add(pkt[:30])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for n := range min(len(b), 120) + 1 {
			if hash(b[:n:n], 1) != hash(bytes.Clone(b[:n]), 1) {
				t.Fatal("it is not the packet's alone")
			}
		}
	})
}
