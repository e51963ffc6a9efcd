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
		Underlay:    []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:4171"), netip.MustParseAddrPort("[2001:db8::1]:65535")},
		Prefixes:    []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24"), netip.MustParsePrefix("2001:db8:42::/64")},
		Annotations: map[string]string{"role": "server", "waiting": "", "ca": strings.Repeat("ab", 32)},
		Run:         [RunSize]byte{15: 1},
		Credential:  bytes.Repeat([]byte{0xc5}, MaxCredential),
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
		"full":         full,
		"left":         left,
		"minimal":      {ID: key.ID(), Name: "a", Kind: KindBridge},
		"another kind": {ID: key.ID(), Name: "a", Kind: "relay"},
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
		{"no kind", func(r *Record) { r.Kind = "" }, ErrMalformed},
		{"kind of two words", func(r *Record) { r.Kind = "node bridge" }, ErrMalformed},
		{"long kind", func(r *Record) { r.Kind = strings.Repeat("a", MaxKind+1) }, ErrMalformed},
		{"long network id", func(r *Record) { r.NetworkID = strings.Repeat("a", MaxNetworkID+1) }, ErrLimit},
		{"network id with a line break", func(r *Record) { r.NetworkID = "a\nb" }, ErrMalformed},
		{"version with an escape sequence", func(r *Record) { r.Version = "\x1b[2J" }, ErrMalformed},
		{"version that is not UTF-8", func(r *Record) { r.Version = "\xff" }, ErrMalformed},
		{"too many addresses", func(r *Record) { r.Addrs = make([]netip.Addr, MaxAddrs+1) }, ErrLimit},
		{"invalid address", func(r *Record) { r.Addrs = make([]netip.Addr, 1) }, ErrMalformed},
		{"address with a zone", func(r *Record) { r.Addrs = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")} }, ErrMalformed},
		{"mapped address", func(r *Record) { r.Addrs = []netip.Addr{netip.MustParseAddr("::ffff:10.0.0.1")} }, ErrMalformed},
		{"too many underlay addresses", func(r *Record) { r.Underlay = make([]netip.AddrPort, MaxUnderlay+1) }, ErrLimit},
		{"invalid underlay address", func(r *Record) { r.Underlay = make([]netip.AddrPort, 1) }, ErrMalformed},
		{"underlay address without a port", func(r *Record) { r.Underlay = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:0")} }, ErrMalformed},
		{"underlay address with a zone", func(r *Record) { r.Underlay = []netip.AddrPort{netip.MustParseAddrPort("[fe80::1%eth0]:1")} }, ErrMalformed},
		{"mapped underlay address", func(r *Record) { r.Underlay = []netip.AddrPort{netip.MustParseAddrPort("[::ffff:10.0.0.1]:1")} }, ErrMalformed},
		{"too many prefixes", func(r *Record) { r.Prefixes = make([]netip.Prefix, MaxPrefixes+1) }, ErrLimit},
		{"invalid prefix", func(r *Record) { r.Prefixes = make([]netip.Prefix, 1) }, ErrMalformed},
		{"prefix with host bits", func(r *Record) { r.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.42.1.1/24")} }, ErrMalformed},
		{"too many annotations", func(r *Record) { r.Annotations = tooMany }, ErrLimit},
		{"unnamed annotation", func(r *Record) { r.Annotations = map[string]string{"": "x"} }, ErrMalformed},
		{"long annotation name", func(r *Record) { r.Annotations = map[string]string{strings.Repeat("a", MaxAnnotationKey+1): ""} }, ErrLimit},
		{"long annotation", func(r *Record) { r.Annotations = map[string]string{"a": strings.Repeat("a", MaxAnnotationValue+1)} }, ErrLimit},
		{"annotation with direction override", func(r *Record) { r.Annotations = map[string]string{"a": "x\u202ey"} }, ErrMalformed},
		{"long credential", func(r *Record) { r.Credential = make([]byte, MaxCredential+1) }, ErrLimit},
		{"unknown field that is known", func(r *Record) { r.Unknown = []byte{tagName, 0, 1, 'a'} }, ErrMalformed},
		{"unknown field that is critical", func(r *Record) { r.Unknown = []byte{0x80, 0, 0} }, ErrMalformed},
		{"unknown fields out of order", func(r *Record) { r.Unknown = []byte{21, 0, 0, 20, 0, 0} }, ErrMalformed},
		{"unknown field cut short", func(r *Record) { r.Unknown = []byte{20, 0, 1} }, ErrMalformed},
		{"unknown fields too large", func(r *Record) { r.Unknown = make([]byte, MaxRecord+1) }, ErrLimit},
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
			case "another author", "invalid address", "address with a zone", "underlay address with a zone":
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

// tlv is one field of a body.
func tlv(tag byte, value ...[]byte) []byte {
	all := bytes.Join(value, nil)
	return append(binary.BigEndian.AppendUint16([]byte{tag}, uint16(len(all))), all...)
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
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	text := func(s string) []byte { return appendText(nil, s) }
	with := func(tag byte, value ...[]byte) []byte {
		return join(tlv(tagKind, []byte(KindNode)), tlv(tagName, []byte("a")), tlv(tag, value...))
	}
	for _, c := range []struct {
		name string
		body []byte
		want error
	}{
		{"empty", nil, ErrMalformed},
		{"trailing byte", append(bytes.Clone(good), 0), ErrMalformed},
		{"no kind", tlv(tagName, []byte("a")), ErrMalformed},
		{"no name", tlv(tagKind, []byte(KindNode)), ErrMalformed},
		{"tag 0", join(tlv(0, []byte("a")), good), ErrMalformed},
		{"a field twice", with(tagName, []byte("a")), ErrMalformed},
		{"fields out of order", join(tlv(tagName, []byte("a")), tlv(tagKind, []byte(KindNode))), ErrMalformed},
		{"empty field", with(tagNetworkID), ErrMalformed},
		{"field longer than the rest", []byte{tagKind, 0, 60, 'a'}, ErrMalformed},
		{"text over its limit", with(tagVersion, bytes.Repeat([]byte{'a'}, 7000)), ErrLimit},
		{"flag of 0", with(tagPinned, []byte{0}), ErrMalformed},
		{"flag of two bytes", with(tagPinned, []byte{1, 1}), ErrMalformed},
		{"address of 5 bytes", with(tagAddrs, []byte{5, 1, 2, 3, 4, 5}), ErrMalformed},
		{"address cut short", with(tagAddrs, []byte{4, 1, 2, 3}), ErrMalformed},
		{"200 addresses", with(tagAddrs, bytes.Repeat([]byte{4, 10, 0, 0, 1}, 200)), ErrLimit},
		{"underlay address without a port", with(tagUnderlay, []byte{4, 10, 0, 0, 1}), ErrMalformed},
		{"underlay address with port 0", with(tagUnderlay, []byte{4, 10, 0, 0, 1, 0, 0}), ErrMalformed},
		{"200 underlay addresses", with(tagUnderlay, bytes.Repeat([]byte{4, 10, 0, 0, 1, 0, 1}, 200)), ErrLimit},
		{"prefix of 33 bits", with(tagPrefixes, []byte{4, 10, 0, 0, 0, 33}), ErrMalformed},
		{"annotations twice", with(tagAnnotations, text("a"), text("1"), text("a"), text("2")), ErrMalformed},
		{"annotations unsorted", with(tagAnnotations, text("b"), text("1"), text("a"), text("2")), ErrMalformed},
		{"run of zeros", with(tagRun, make([]byte, RunSize)), ErrMalformed},
		{"short run", with(tagRun, []byte{1}), ErrMalformed},
		{"credential over its limit", with(tagCredential, make([]byte, MaxCredential+1)), ErrLimit},
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
	f.Add(bytes.Join([][]byte{tlv(tagKind, []byte(KindNode)), tlv(tagName, []byte("a"))}, nil), true)
	f.Add(append(bytes.Clone(good[offsetBody:]), tlv(0x70, []byte("new"))...), true)
	f.Add(append(bytes.Clone(good[offsetBody:]), tlv(0x90, []byte("new"))...), true)
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
