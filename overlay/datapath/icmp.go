package datapath

import (
	"encoding/binary"
	"time"

	"github.com/kairos-io/kairos/overlay/offload"
)

// ICMP types and codes that tell a local sender why its packet went nowhere
// (RFC 792, RFC 1191, RFC 4443).
const (
	icmp4Unreachable = 3
	icmp4Host        = 1 // code: no such host, or it is not connected
	icmp4TooBig      = 4 // code: fragmentation needed and DF set
	icmp6Unreachable = 1
	icmp6Address     = 3 // code: no such address, or it is not connected
	icmp6TooBig      = 2

	protoICMP4 = 1
	protoICMP6 = 58

	icmpHeader = 8
	// As much of the packet as the answer may hold (RFC 1812, RFC 4443).
	maxICMP4 = 576
	maxICMP6 = 1280
)

// appendUnreachable appends the ICMP packet that tells the sender of pkt that
// its destination cannot be reached. It comes in the name of the destination,
// because the kernel drops what claims to come from itself. It appends nothing
// where ICMP must not answer. pkt is one that parse accepts.
func appendUnreachable(dst, pkt []byte) []byte {
	if pkt[0]>>4 == 4 {
		return appendICMP4(dst, pkt, icmp4Host, 0)
	}
	return appendICMP6(dst, pkt, [2]byte{icmp6Unreachable, icmp6Address}, 0)
}

// appendTooBig likewise tells that pkt is larger than mtu bytes.
func appendTooBig(dst, pkt []byte, mtu int) []byte {
	if pkt[0]>>4 == 4 {
		return appendICMP4(dst, pkt, icmp4TooBig, uint32(mtu))
	}
	return appendICMP6(dst, pkt, [2]byte{icmp6TooBig, 0}, uint32(mtu))
}

func appendICMP4(dst, pkt []byte, code byte, info uint32) []byte {
	header := int(pkt[0]&0x0f) * 4
	if binary.BigEndian.Uint16(pkt[6:])&0x1fff != 0 { // a later fragment
		return dst
	}
	if pkt[9] == protoICMP4 && (len(pkt) <= header || !icmp4Query(pkt[header])) {
		return dst
	}
	quote := pkt[:min(len(pkt), maxICMP4-minIPv4-icmpHeader)]
	at := len(dst)
	dst = append(dst, 0x45, 0xc0) // precedence as RFC 1812, section 4.3.2.5
	dst = binary.BigEndian.AppendUint16(dst, uint16(minIPv4+icmpHeader+len(quote)))
	dst = append(dst, 0, 0, 0, 0, 64, protoICMP4, 0, 0)
	dst = append(append(dst, pkt[16:20]...), pkt[12:16]...)
	binary.BigEndian.PutUint16(dst[at+10:], offload.Checksum(0, dst[at:]))
	body := len(dst)
	dst = append(dst, icmp4Unreachable, code, 0, 0)
	dst = append(binary.BigEndian.AppendUint32(dst, info), quote...)
	binary.BigEndian.PutUint16(dst[body+2:], offload.Checksum(0, dst[body:]))
	return dst
}

// icmp4Query reports whether an ICMP message of this type may be answered with
// an error; an error may not (RFC 1122, section 3.2.2).
func icmp4Query(kind byte) bool {
	switch kind {
	case 3, 4, 5, 11, 12:
		return false
	}
	return true
}

func appendICMP6(dst, pkt []byte, kind [2]byte, info uint32) []byte {
	// Errors have types below 128. Where extension headers hide the type, we
	// answer; the rate limit ends any exchange that could come of it.
	if pkt[6] == protoICMP6 && (len(pkt) <= minIPv6 || pkt[minIPv6] < 128) {
		return dst
	}
	quote := pkt[:min(len(pkt), maxICMP6-minIPv6-icmpHeader)]
	size := icmpHeader + len(quote)
	at := len(dst)
	dst = append(dst, 0x60, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(size))
	dst = append(dst, protoICMP6, 64)
	dst = append(append(dst, pkt[24:40]...), pkt[8:24]...)
	// The pseudo header of RFC 8200, section 8.1: addresses, length, protocol.
	pseudo := uint32(^offload.Checksum(uint32(size)+protoICMP6, dst[at+8:at+40]))
	body := len(dst)
	dst = append(dst, kind[0], kind[1], 0, 0)
	dst = append(binary.BigEndian.AppendUint32(dst, info), quote...)
	binary.BigEndian.PutUint16(dst[body+2:], offload.Checksum(pseudo, dst[body:]))
	return dst
}

// Local programs get at most this many ICMP answers: a burst, then a rate.
const (
	icmpBurst = 50
	icmpEvery = 10 * time.Millisecond
)

// limiter is a token bucket; the zero value is full.
type limiter struct {
	spent int
	last  time.Time
}

// allow takes a token if there is one.
func (l *limiter) allow(now time.Time) bool {
	if l.spent > 0 {
		if back := int(now.Sub(l.last) / icmpEvery); back > 0 {
			l.spent = max(0, l.spent-back)
			l.last = now
		}
	} else {
		l.last = now
	}
	if l.spent >= icmpBurst {
		return false
	}
	l.spent++
	return true
}
