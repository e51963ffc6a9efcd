package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
)

func testKey(t testing.TB, n byte) identity.Key {
	t.Helper()
	key, err := identity.Generate(bytes.NewReader(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func fullRecord(id identity.ID) Record {
	return Record{
		ID: id, Seq: 1<<32 | 7, Name: "node-1-abcdef", Kind: KindNode, NetworkID: "home", Version: "v0.1.0",
		Addrs:       []netip.Addr{netip.MustParseAddr("10.77.1.2"), netip.MustParseAddr("fd00::1")},
		Pinned:      true,
		Underlay:    []string{"192.0.2.1:4171", "/ip6/2001:db8::1/udp/4171/quic-v1"},
		Prefixes:    []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24"), netip.MustParsePrefix("2001:db8:42::/64")},
		Annotations: map[string]string{"role": "server", "waiting": "", "ca": strings.Repeat("ab", 32)},
	}
}

func seal(t testing.TB, key identity.Key, r Record) Signed {
	t.Helper()
	s, err := Seal(key, r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRecordRoundTrip(t *testing.T) {
	key := testKey(t, 1)
	full := fullRecord(key.ID())
	left := full
	left.Left, left.Pinned, left.Kind, left.Addrs = true, false, KindBridge, nil
	for name, r := range map[string]Record{
		"full":    full,
		"left":    left,
		"minimal": {ID: key.ID(), Name: "a", Kind: KindBridge},
	} {
		s := seal(t, key, r)
		got, err := Open(s)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(got, r) {
			t.Errorf("%s: got %+v, want %+v", name, got, r)
		}
		if again := seal(t, key, got); !bytes.Equal(again, s) {
			t.Errorf("%s: two encodings of one record", name)
		}
		if id, seq, ok := s.Head(); !ok || id != r.ID || seq != r.Seq {
			t.Errorf("%s: head says %s %d %v", name, id.Short(), seq, ok)
		}
	}
}

func TestSealFillsID(t *testing.T) {
	key := testKey(t, 1)
	r, err := Open(seal(t, key, Record{Name: "a", Kind: KindNode}))
	if err != nil || r.ID != key.ID() {
		t.Errorf("id %s, %v", r.ID, err)
	}
}

// A record belongs to its author: no bit of it can change, and no part can be cut.
func TestOpenEveryBit(t *testing.T) {
	s := seal(t, testKey(t, 1), fullRecord(identity.ID{}))
	for i := range len(s) * 8 {
		forged := bytes.Clone(s)
		forged[i/8] ^= 1 << (i % 8)
		if _, err := Open(forged); err == nil {
			t.Fatalf("bit %d of byte %d does not matter", i%8, i/8)
		} else if i >= 8 && !errors.Is(err, ErrSignature) {
			t.Fatalf("byte %d was interpreted before the signature was checked: %v", i/8, err)
		}
	}
	for i := range s {
		if _, err := Open(s[:i]); err == nil {
			t.Fatalf("opens when cut to %d bytes", i)
		}
	}
	if _, err := Open(append(bytes.Clone(s), 0)); !errors.Is(err, ErrSignature) {
		t.Errorf("a byte too many: %v", err)
	}
}

type badRecord struct {
	name   string
	change func(*Record)
	want   error
}

// badRecords are records that nobody seals or opens.
func badRecords(t *testing.T) []badRecord {
	t.Helper()
	tooMany := map[string]string{}
	for i := range MaxAnnotations + 1 {
		tooMany[fmt.Sprint(i)] = ""
	}
	large := map[string]string{}
	for i := range 9 {
		large[fmt.Sprint(i)] = strings.Repeat("x", MaxAnnotationValue)
	}
	return []badRecord{
		{"another author", func(r *Record) { r.ID = testKey(t, 2).ID() }, ErrKey},
		{"no name", func(r *Record) { r.Name = "" }, ErrMalformed},
		{"upper case name", func(r *Record) { r.Name = "Node" }, ErrMalformed},
		{"dotted name", func(r *Record) { r.Name = "a.b" }, ErrMalformed},
		{"name ends in a dash", func(r *Record) { r.Name = "a-" }, ErrMalformed},
		{"long name", func(r *Record) { r.Name = strings.Repeat("a", MaxName+1) }, ErrMalformed},
		{"unknown kind", func(r *Record) { r.Kind = "router" }, ErrMalformed},
		{"long network id", func(r *Record) { r.NetworkID = strings.Repeat("a", MaxNetworkID+1) }, ErrLimit},
		{"network id with a line break", func(r *Record) { r.NetworkID = "a\nb" }, ErrMalformed},
		{"version with an escape sequence", func(r *Record) { r.Version = "\x1b[2J" }, ErrMalformed},
		{"version that is not UTF-8", func(r *Record) { r.Version = "\xff" }, ErrMalformed},
		{"too many addresses", func(r *Record) { r.Addrs = make([]netip.Addr, MaxAddrs+1) }, ErrLimit},
		{"invalid address", func(r *Record) { r.Addrs = make([]netip.Addr, 1) }, ErrMalformed},
		{"address with a zone", func(r *Record) { r.Addrs = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")} }, ErrMalformed},
		{"mapped address", func(r *Record) { r.Addrs = []netip.Addr{netip.MustParseAddr("::ffff:10.0.0.1")} }, ErrMalformed},
		{"too many underlay addresses", func(r *Record) { r.Underlay = make([]string, MaxUnderlay+1) }, ErrLimit},
		{"empty underlay address", func(r *Record) { r.Underlay = []string{""} }, ErrMalformed},
		{"long underlay address", func(r *Record) { r.Underlay = []string{strings.Repeat("a", MaxUnderlayLen+1)} }, ErrLimit},
		{"too many prefixes", func(r *Record) { r.Prefixes = make([]netip.Prefix, MaxPrefixes+1) }, ErrLimit},
		{"invalid prefix", func(r *Record) { r.Prefixes = make([]netip.Prefix, 1) }, ErrMalformed},
		{"prefix with host bits", func(r *Record) { r.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.42.1.1/24")} }, ErrMalformed},
		{"too many annotations", func(r *Record) { r.Annotations = tooMany }, ErrLimit},
		{"unnamed annotation", func(r *Record) { r.Annotations = map[string]string{"": "x"} }, ErrMalformed},
		{"long annotation name", func(r *Record) { r.Annotations = map[string]string{strings.Repeat("a", MaxAnnotationKey+1): ""} }, ErrLimit},
		{"long annotation", func(r *Record) { r.Annotations = map[string]string{"a": strings.Repeat("a", MaxAnnotationValue+1)} }, ErrLimit},
		{"annotation with direction override", func(r *Record) { r.Annotations = map[string]string{"a": "x\u202ey"} }, ErrMalformed},
		{"all within limits but large", func(r *Record) { r.Annotations = large }, ErrLimit},
	}
}

func TestRecordLimits(t *testing.T) {
	key := testKey(t, 1)
	for _, c := range badRecords(t) {
		t.Run(c.name, func(t *testing.T) {
			r := fullRecord(identity.ID{})
			c.change(&r)
			if _, err := Seal(key, r); !errors.Is(err, c.want) {
				t.Errorf("seal: %v, want %v", err, c.want)
			}
			switch c.name {
			case "another author", "unknown kind", "invalid address", "address with a zone":
				return // these have no encoding
			}
			if _, err := Open(rawSeal(t, key, appendBody(nil, r))); err == nil {
				t.Error("open takes what seal refuses")
			}
		})
	}
	if _, err := Seal(identity.Key{}, fullRecord(identity.ID{})); !errors.Is(err, ErrKey) {
		t.Errorf("zero key: %v", err)
	}
}

// rawSeal signs any body, as a hostile member can.
func rawSeal(t testing.TB, key identity.Key, body []byte) Signed {
	t.Helper()
	out := make([]byte, offsetBody)
	out[0] = recordVersion
	id := key.ID()
	copy(out[offsetID:], id[:])
	binary.BigEndian.PutUint64(out[offsetSeq:], 1)
	out = append(out, body...)
	copy(out[offsetSig:], key.Sign(signContext, signedPart(out)))
	return out
}

// Well signed nonsense of a member.
func TestOpenHostileBodies(t *testing.T) {
	key := testKey(t, 1)
	good := appendBody(nil, fullRecord(key.ID()))
	text := func(s string) []byte { return appendText(nil, s) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	head := join([]byte{0}, text("a"), text(""), text(""))
	for _, c := range []struct {
		name string
		body []byte
		want error
	}{
		{"empty", nil, ErrMalformed},
		{"trailing byte", append(bytes.Clone(good), 0), ErrMalformed},
		{"unknown flag", append([]byte{0x80}, good[1:]...), ErrMalformed},
		{"text longer than the rest", []byte{0, 0, 60, 'a'}, ErrMalformed},
		{"text over its limit", join([]byte{0, 0xff, 0xff}, bytes.Repeat([]byte{'a'}, 7000)), ErrLimit},
		{"address of 5 bytes", join(head, []byte{1, 5, 1, 2, 3, 4, 5, 0, 0, 0}), ErrMalformed},
		{"200 addresses", join(head, []byte{200}), ErrLimit},
		{"prefix of 33 bits", join(head, []byte{0, 0, 1, 4, 10, 0, 0, 0, 33, 0}), ErrMalformed},
		{"annotations twice", join(head, []byte{0, 0, 0, 2}, text("a"), text("1"), text("a"), text("2")), ErrMalformed},
		{"annotations unsorted", join(head, []byte{0, 0, 0, 2}, text("b"), text("1"), text("a"), text("2")), ErrMalformed},
		{"200 annotations", join(head, []byte{0, 0, 0, 200}), ErrLimit},
		{"over the size of a record", bytes.Repeat([]byte{0}, MaxRecord), ErrLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Open(rawSeal(t, key, c.body)); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	future := rawSeal(t, key, good)
	future[0] = recordVersion + 1
	if _, err := Open(future); !errors.Is(err, ErrVersion) {
		t.Errorf("future version: %v", err)
	}
	if _, _, ok := future.Head(); ok {
		t.Error("head of a future version")
	}
}

func TestClean(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"plain", 10, "plain"},
		{"two\nlines\t\x1b[0m", 100, "two lines  [0m"},
		{"\xff\u202e", 10, "  "},
		{"äöü", 3, "ä"},
		{"äöü", 4, "äö"},
		{"x", 0, ""},
		{"x", -1, ""},
	} {
		got := Clean(c.in, c.limit)
		if got != c.want {
			t.Errorf("clean %q to %d: %q, want %q", c.in, c.limit, got, c.want)
		}
		if err := checkText("x", got, max(c.limit, 0)); err != nil {
			t.Errorf("clean %q: %v", c.in, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	key := testKey(f, 1)
	good := seal(f, key, fullRecord(key.ID()))
	f.Add([]byte(good), false)
	f.Add([]byte(good[offsetBody:]), true)
	f.Add([]byte{0, 0, 1, 'a', 0, 0, 0, 0, 0, 0, 0, 0}, true)
	f.Add([]byte{7, 0, 1, 'a', 0, 0, 0, 0, 1, 4, 10, 0, 0, 1, 0, 1, 16}, true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, raw []byte, sign bool) {
		s := Signed(raw)
		if sign { // reach what lies behind the signature
			s = rawSeal(t, key, raw)
		}
		r, err := Open(s)
		if err != nil {
			return
		}
		again, err := Seal(key, r)
		if r.ID != key.ID() {
			t.Fatal("opened a record of somebody else")
		}
		if err != nil || !bytes.Equal(again, s) {
			t.Fatalf("another encoding of the same record: %v", err)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	s := seal(b, testKey(b, 1), fullRecord(identity.ID{}))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Open(s); err != nil {
			b.Fatal(err)
		}
	}
}
