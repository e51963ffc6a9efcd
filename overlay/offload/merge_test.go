package offload

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

// merged is a packet as the kernel gets it.
type merged struct {
	h     Header
	data  []byte
	parts int
}

// merge passes packets through m, as the way in does.
func merge(m *Merger, pkts []Packet) []merged {
	var all []merged
	take := func() {
		if h, parts := m.Take(); len(parts) > 0 {
			all = append(all, merged{h, bytes.Join(parts, nil), len(parts)})
		}
	}
	for _, p := range pkts {
		for !m.Add(p) {
			take()
		}
	}
	take()
	return all
}

// apart are the packets on a wire that others stand for, completed and in order.
// Numbers of IPv4 packets are not compared: they are for fragments to find together.
func apart(t testing.TB, pkts []Packet) [][]byte {
	t.Helper()
	var all [][]byte
	for _, p := range pkts {
		p.Data = bytes.Clone(p.Data)
		for _, pkt := range cut(t, p, len(p.Data)) {
			one, err := Packet{pkt, p.Shape.Segment()}.Complete()
			if err != nil {
				t.Fatalf("%v: % x", err, pkt)
			}
			if pkt = one.Data; p.Shape != Whole && pkt[0]>>4 == 4 {
				copy(pkt[4:], []byte{0, 0})
				copy(pkt[10:], []byte{0, 0})
			}
			all = append(all, pkt)
		}
	}
	return all
}

// wantSame checks that the kernel's packets stand for those that were added, and for
// no others, and that the kernel's own rules hold for each.
func wantSame(t testing.TB, got []merged, added [][]byte) {
	t.Helper()
	var pkts []Packet
	for i, m := range got {
		p, err := Take(m.h, bytes.Clone(m.data))
		if err != nil || !p.Valid() {
			t.Fatalf("packet %d of %d parts: shape %d, error %v", i, m.parts, p.Shape, err)
		}
		if p.Shape != Whole {
			if at := int(m.h.ChecksumStart + m.h.ChecksumOffset); !bytes.Equal(m.data[at:at+2], pseudoOf(m)) {
				t.Fatalf("packet %d: the kernel begins its sum with % x, want % x", i, m.data[at:at+2], pseudoOf(m))
			}
			if m.data[0]>>4 == 4 && naive(m.data[:4*int(m.data[0]&15)]) != 0xffff {
				t.Fatalf("packet %d: wrong checksum of the IPv4 header", i)
			}
		}
		pkts = append(pkts, p)
	}
	all := apart(t, pkts)
	if len(all) != len(added) {
		t.Fatalf("the kernel gets %d packets, want %d", len(all), len(added))
	}
	for i := range all {
		if !bytes.Equal(all[i], added[i]) {
			t.Fatalf("packet %d is\n% x, want\n% x", i, all[i], added[i])
		}
	}
}

func pseudoOf(m merged) []byte {
	proto := byte(6)
	if m.h.ChecksumOffset == 6 {
		proto = 17
	}
	return binary.BigEndian.AppendUint16(nil, naive(naivePseudo(m.data, int(m.h.ChecksumStart), proto)))
}

// partials are samples as they come from a peer.
func partials(samples ...sample) []Packet {
	var pkts []Packet
	for _, s := range samples {
		pkts = append(pkts, Packet{s.bytes(), Partial})
	}
	return pkts
}

// What a Cutter has made becomes the same packet again, byte by byte, with what the
// kernel said of it.
func TestMergeUndoesCut(t *testing.T) {
	for name, s := range kinds {
		for what, c := range sizes {
			t.Run(name+"/"+what, func(t *testing.T) {
				s := s.with(c.payload)
				s.flags = flagPSH
				wantInverse(t, s, c.segment)
			})
		}
	}
}

func wantInverse(t *testing.T, s sample, size int) {
	t.Helper()
	want := s.partial()
	p, err := Take(s.kernel(size), s.partial())
	if err != nil {
		t.Fatal(err)
	}
	var pkts []Packet
	for _, pkt := range cut(t, p, len(p.Data)) {
		pkts = append(pkts, Packet{pkt, Partial})
	}
	segments := len(pkts)
	got := merge(new(Merger), pkts)
	if segments <= maxSegments {
		h := s.kernel(size)
		if len(got) != 1 || got[0].h != h || !bytes.Equal(got[0].data, want) {
			t.Fatalf("%d packets, header %+v, want %+v, equal %v", len(got), got[0].h, h, bytes.Equal(got[0].data, want))
		}
	}
	var added [][]byte
	for _, one := range s.segments(size) {
		added = append(added, apart(t, partials(one))...)
	}
	wantSame(t, got, added)
}

func TestMergeUndoesCutOfAnything(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range kinds {
			if !yield(name) {
				return
			}
		}
	})
	for range 3000 {
		s := kinds[names[r.IntN(len(names))]]
		s.id, s.seq = uint16(r.Uint32()), r.Uint32()
		s.flags = byte(r.IntN(4)) & 1 * flagFIN
		s.flags |= byte(r.IntN(2)) * flagPSH
		size := 2 + r.IntN(1400)
		wantInverse(t, s.with(size+1+r.IntN(min(65535-s.header()-size-1, 70*size))), size)
	}
}

// A packet that was large on the way, by the stream, is for the kernel as it was.
func TestMergeOfLargePackets(t *testing.T) {
	for name, s := range kinds {
		for _, flags := range []byte{0, flagFIN | flagPSH, flagCWR, flagCWR | flagPSH} {
			s := s.with(65535 - s.header())
			s.flags = flags
			one := sample{udp: true}.with(9)
			pkts := []Packet{{s.bytes(), 1400}, {one.bytes(), Partial}, {s.bytes(), 1400}}
			got := merge(new(Merger), pkts)
			for i, want := range []struct {
				data []byte
				h    Header
			}{{s.partial(), s.kernel(1400)}, {one.partial(), Header{1, 0, 28, 0, 20, 6}}, {s.partial(), s.kernel(1400)}} {
				if len(got) != 3 || got[i].h != want.h || !bytes.Equal(got[i].data, want.data) {
					t.Fatalf("%s, flags %#x: packet %d of %d: header %+v, want %+v", name, flags, i, len(got), got[i].h, want.h)
				}
			}
		}
	}
}

// Whole packets go as they came, right or wrong, and nothing is said of them.
func TestMergeLeavesWholePacketsAlone(t *testing.T) {
	var pkts []Packet
	var want [][]byte
	for _, s := range (sample{flags: 0}).with(3000).segments(1000) {
		pkt := s.whole()
		pkt[10]++ // not even this is mended
		pkts = append(pkts, Packet{pkt, Whole})
		want = append(want, bytes.Clone(pkt))
	}
	pkts = append(pkts, Packet{[]byte{1}, Whole})
	want = append(want, []byte{1})
	got := merge(new(Merger), pkts)
	for i := range want {
		if len(got) != len(want) || got[i].h != (Header{}) || !bytes.Equal(got[i].data, want[i]) {
			t.Fatalf("packet %d of %d: header %+v, equal %v", i, len(got), got[i].h, bytes.Equal(got[i].data, want[i]))
		}
	}
}

// A Merger that has given all it had has nothing more, and starts afresh.
func TestMergerIsEmpty(t *testing.T) {
	var m Merger
	for range 3 {
		if h, parts := m.Take(); len(parts) != 0 || h != (Header{}) {
			t.Fatalf("%d parts, header %+v", len(parts), h)
		}
		pkts := partials(sample{}.with(1000).segments(300)...)
		if got := merge(&m, pkts); len(got) != 1 || got[0].parts != 4 {
			t.Fatalf("%d packets", len(got))
		}
	}
}
