package datapath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// wantAnswer checks that reply is a sound ICMP error for pkt, back to its source.
func wantAnswer(t *testing.T, reply, pkt []byte) {
	t.Helper()
	src, dst, ok := parse(reply)
	psrc, pdst, _ := parse(pkt)
	if !ok || src != pdst || dst != psrc {
		t.Fatalf("answer from %v to %v, for a packet from %v to %v: %x", src, dst, psrc, pdst, reply)
	}
	body := reply[minIPv4:]
	pseudo := uint32(0)
	if src.Is4() {
		if checksum(0, reply[:minIPv4]) != 0 {
			t.Errorf("header checksum is wrong: %x", reply[:minIPv4])
		}
	} else {
		body = reply[minIPv6:]
		pseudo = sum(uint32(len(body))+protoICMP6, reply[8:40])
	}
	if checksum(pseudo, body) != 0 {
		t.Errorf("ICMP checksum is wrong: %x", reply)
	}
	if quote := body[icmpHeader:]; !bytes.HasPrefix(pkt, quote) || len(quote) < min(len(pkt), 28) {
		t.Errorf("quotes %x, want the start of %x", quote, pkt)
	}
}

func TestTooBig(t *testing.T) {
	a4, b4 := netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("10.7.0.2")
	a6, b6 := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	pkt := packet(a4, b4, 0, 1400)
	reply := appendTooBig(nil, pkt, 1300)
	wantAnswer(t, reply, pkt)
	if reply[20] != 3 || reply[21] != 4 || binary.BigEndian.Uint16(reply[26:]) != 1300 || len(reply) > 576 {
		t.Errorf("IPv4: %x", reply[:28])
	}
	pkt = packet(a6, b6, 0, 1400)
	reply = appendTooBig(nil, pkt, 1300)
	wantAnswer(t, reply, pkt)
	if reply[40] != 2 || reply[41] != 0 || binary.BigEndian.Uint32(reply[44:]) != 1300 || len(reply) > 1280 {
		t.Errorf("IPv6: %x", reply[:48])
	}
}

func TestNoAnswerToErrorsAndFragments(t *testing.T) {
	a4, b4 := netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("10.7.0.2")
	a6, b6 := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	icmp := func(pkt []byte, kind byte) []byte {
		if pkt[0]>>4 == 4 {
			pkt[9], pkt[20] = protoICMP4, kind
		} else {
			pkt[6], pkt[40] = protoICMP6, kind
		}
		return pkt
	}
	fragment := packet(a4, b4, 0, 0)
	binary.BigEndian.PutUint16(fragment[6:], 185)
	first := packet(a4, b4, 0, 0)
	binary.BigEndian.PutUint16(first[6:], 0x2000)
	for _, c := range []struct {
		name   string
		pkt    []byte
		answer bool
	}{
		{"echo request", icmp(packet(a4, b4, 0, 0), 8), true},
		{"unreachable", icmp(packet(a4, b4, 0, 0), 3), false},
		{"time exceeded", icmp(packet(a4, b4, 0, 0), 11), false},
		{"ICMP without type", icmp(packet(a4, b4, 0, 0), 8)[:20], false},
		{"first fragment", first, true},
		{"later fragment", fragment, false},
		{"echo request v6", icmp(packet(a6, b6, 0, 0), 128), true},
		{"packet too big v6", icmp(packet(a6, b6, 0, 0), 2), false},
		{"unreachable v6", icmp(packet(a6, b6, 0, 0), 1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := appendUnreachable(nil, c.pkt); (len(got) > 0) != c.answer {
				t.Errorf("answer %x", got)
			}
		})
	}
}

func TestLimiter(t *testing.T) {
	var l limiter
	now := time.Now()
	count := func(after time.Duration) (n int) {
		now = now.Add(after)
		for l.allow(now) {
			n++
		}
		return n
	}
	for i, c := range []struct {
		after time.Duration
		want  int
	}{{0, icmpBurst}, {0, 0}, {icmpEvery / 2, 0}, {icmpEvery / 2, 1}, {10 * icmpEvery, 10}, {time.Hour, icmpBurst}} {
		if got := count(c.after); got != c.want {
			t.Errorf("step %d: %d allowed, want %d", i, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(packet(netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("10.7.0.2"), 1, 60))
	f.Add(packet(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 1, 60))
	f.Add([]byte{0x45})
	f.Fuzz(func(t *testing.T, pkt []byte) {
		src, dst, ok := parse(pkt)
		if !ok {
			return
		}
		for _, reply := range [][]byte{appendUnreachable(nil, pkt), appendTooBig(nil, pkt, 1280)} {
			if len(reply) == 0 {
				continue
			}
			rsrc, rdst, ok := parse(reply)
			if !ok || rsrc != dst || rdst != src || len(reply) > maxICMP6 {
				t.Fatalf("answer %x to %x", reply, pkt)
			}
		}
	})
}

// sum adds b to a one's complement sum (RFC 1071), not folded; b is short
// enough that 32 bits hold it.
func sum(start uint32, b []byte) uint32 {
	for len(b) >= 2 {
		start += uint32(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		start += uint32(b[0]) << 8
	}
	return start
}

func checksum(start uint32, b []byte) uint16 {
	s := sum(start, b)
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}
