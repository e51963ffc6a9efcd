package identity

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/kairos-io/kairos/overlay/secret"
)

func seedOf(n uint32) secret.Key {
	return secret.NewKey(sha256.Sum256(binary.BigEndian.AppendUint32(nil, n)))
}

func networkOf(t testing.TB, seed secret.Key, override string) Network {
	t.Helper()
	var prefix netip.Prefix
	if override != "" {
		prefix = netip.MustParsePrefix(override)
	}
	n, err := NetworkOf(seed, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Addresses are forever: a change here tears running meshes apart.
func TestNetworkGolden(t *testing.T) {
	n, id := networkOf(t, seedOf(1), ""), testKey(t, 1).ID()
	for _, c := range []struct{ name, got, want string }{
		{"v4 range", n.V4.String(), "10.202.0.0/16"},
		{"v6 range", n.V6.String(), "fdaf:80f9:df60:2da0::/64"},
		{"v4 address", n.V4Addr(id, 0).String(), "10.202.239.119"},
		{"v4 second choice", n.V4Addr(id, 1).String(), "10.202.52.23"},
		{"v6 address", n.V6Addr(id).String(), "fdaf:80f9:df60:2da0:3cc0:a835:857e:ea4e"},
	} {
		if c.got != c.want {
			t.Errorf("%s %s, want %s", c.name, c.got, c.want)
		}
	}
}

func TestNetworkFromToken(t *testing.T) {
	mustNot := []string{
		"10.0.0.0/15", "10.42.0.0/15", "10.96.0.0/12", "10.244.0.0/16", "10.88.0.0/16",
	}
	inTen, ula := netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")
	chosen := map[netip.Prefix]int{}
	for i := range uint32(5_000) {
		n := networkOf(t, seedOf(i), "")
		chosen[n.V4]++
		if n.V4.Bits() != 16 || !inTen.Contains(n.V4.Addr()) || n.V4 != n.V4.Masked() {
			t.Fatalf("%s is not a /16 of 10/8", n.V4)
		}
		if n.V6.Bits() != 64 || !ula.Contains(n.V6.Addr()) || n.V6 != n.V6.Masked() {
			t.Fatalf("%s is not a unique local /64", n.V6)
		}
		for _, taken := range mustNot {
			if n.V4.Overlaps(netip.MustParsePrefix(taken)) {
				t.Fatalf("%s overlaps %s", n.V4, taken)
			}
		}
	}
	if len(chosen) != len(allowedOctets()) {
		t.Errorf("%d of %d ranges are ever chosen", len(chosen), len(allowedOctets()))
	}
	mean := 5_000 / len(chosen)
	for p, count := range chosen {
		if count < mean/2 || count > mean*2 {
			t.Errorf("%s chosen %d times, mean %d", p, count, mean)
		}
	}
	if _, err := NetworkOf(secret.Key{}, netip.Prefix{}); !errors.Is(err, ErrNetwork) {
		t.Errorf("no seed: %v", err)
	}
}

func TestNetworkOverride(t *testing.T) {
	for _, c := range []struct {
		cidr string
		ok   bool
	}{
		{"192.168.77.0/24", true}, {"172.30.0.0/16", true}, {"11.0.0.0/8", true}, {"10.96.0.0/16", true}, {"100.64.0.0/10", true},
		{"192.168.77.0/25", false}, {"128.0.0.0/7", false}, {"192.168.77.1/24", false}, {"fd00::/64", false},
		{"10.0.0.0/8", false}, {"10.42.0.0/24", false}, {"10.43.128.0/20", false}, {"127.0.0.0/8", false},
		{"0.0.0.0/8", false}, {"224.0.0.0/8", false}, {"240.0.0.0/16", false}, {"169.254.0.0/16", false},
		{"::ffff:10.9.0.0/112", false},
	} {
		prefix := netip.MustParsePrefix(c.cidr)
		n, err := NetworkOf(seedOf(1), prefix)
		switch {
		case c.ok && (err != nil || n.V4 != prefix || n.V6 != networkOf(t, seedOf(1), "").V6):
			t.Errorf("%s: %v, %v", c.cidr, n, err)
		case !c.ok && (!errors.Is(err, ErrNetwork) || n != (Network{})):
			t.Errorf("%s: %v, %v", c.cidr, n, err)
		}
	}
	if _, err := NetworkOf(seedOf(1), netip.PrefixFrom(netip.MustParseAddr("10.9.0.0"), 99)); !errors.Is(err, ErrNetwork) {
		t.Errorf("invalid prefix: %v", err)
	}
}

func TestV4Addr(t *testing.T) {
	for _, cidr := range []string{"", "192.168.77.0/24", "172.30.0.0/16", "11.0.0.0/8", "172.16.4.0/23"} {
		n := networkOf(t, seedOf(1), cidr)
		seen := map[netip.Addr]bool{}
		id := testKey(t, 1).ID()
		for attempt := range uint32(5_000) {
			addr := n.V4Addr(id, attempt)
			if !n.V4.Contains(addr) {
				t.Fatalf("%s outside %s", addr, n.V4)
			}
			if last := addr.As4()[3]; last == 0 || last == 255 {
				t.Fatalf("%s looks like a network or a broadcast", addr)
			}
			seen[addr] = true
		}
		if cidr == "192.168.77.0/24" && len(seen) != hostsPerBlock {
			t.Errorf("%d of %d hosts of a /24 can be reached", len(seen), hostsPerBlock)
		}
		if cidr == "" && len(seen) < 4_500 {
			t.Errorf("%d different addresses in 5000 attempts", len(seen))
		}
	}
	if got := (Network{}).V4Addr(ID{1}, 0); got.IsValid() {
		t.Errorf("the zero network has the address %s", got)
	}
}

func TestV6Addr(t *testing.T) {
	a, b := networkOf(t, seedOf(1), ""), networkOf(t, seedOf(2), "")
	seen := map[netip.Addr]bool{}
	for i := range byte(100) {
		id := testKey(t, i).ID()
		addr := a.V6Addr(id)
		if !a.V6.Contains(addr) || seen[addr] {
			t.Fatalf("%s: outside or taken", addr)
		}
		seen[addr] = true
		x, y := addr.As16(), b.V6Addr(id).As16()
		if [8]byte(x[8:]) == [8]byte(y[8:]) {
			t.Fatal("one key can be followed from mesh to mesh")
		}
	}
	for _, iid := range []uint64{0, 0xfdffffffffffff80, 0xfdffffffffffffff, 0x02005efffe000000, 0x02005efffeffffff} {
		if !reservedInterfaceID(iid) {
			t.Errorf("%x is not reserved", iid)
		}
	}
	for _, iid := range []uint64{1, 0xfdffffffffffff7f, 0xfe00000000000000, 0x02005effff000000} {
		if reservedInterfaceID(iid) {
			t.Errorf("%x is reserved", iid)
		}
	}
}
