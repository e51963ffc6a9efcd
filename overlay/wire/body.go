package wire

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Flags of the body; all other bits are refused.
const (
	flagPinned = 1 << iota
	flagLeft
	flagBridge
	knownFlags = flagPinned | flagLeft | flagBridge
)

// appendBody encodes everything but ID and sequence. r is valid.
func appendBody(out []byte, r Record) []byte {
	out = append(out, flagsOf(r))
	out = appendText(out, r.Name)
	out = appendText(out, r.NetworkID)
	out = appendText(out, r.Version)
	out = append(out, byte(len(r.Addrs)))
	for _, a := range r.Addrs {
		out = appendAddr(out, a)
	}
	out = append(out, byte(len(r.Underlay)))
	for _, u := range r.Underlay {
		out = appendText(out, u)
	}
	out = append(out, byte(len(r.Prefixes)))
	for _, p := range r.Prefixes {
		out = append(appendAddr(out, p.Addr()), byte(p.Bits()))
	}
	out = append(out, byte(len(r.Annotations)))
	for _, k := range slices.Sorted(maps.Keys(r.Annotations)) {
		out = appendText(appendText(out, k), r.Annotations[k])
	}
	return out
}

func flagsOf(r Record) byte {
	var flags byte
	if r.Pinned {
		flags |= flagPinned
	}
	if r.Left {
		flags |= flagLeft
	}
	if r.Kind == KindBridge {
		flags |= flagBridge
	}
	return flags
}

func appendText(out []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(out, uint16(len(s))), s...)
}

func appendAddr(out []byte, a netip.Addr) []byte {
	raw := a.AsSlice()
	return append(append(out, byte(len(raw))), raw...)
}

// readBody decodes what appendBody wrote, and nothing else. It checks form and
// counts; validate checks the rest.
func readBody(body []byte) (Record, error) {
	d := decoder{rest: body}
	flags := d.byte()
	if flags&^knownFlags != 0 {
		d.fail("unknown flags")
	}
	r := Record{Kind: KindNode, Pinned: flags&flagPinned != 0, Left: flags&flagLeft != 0}
	if flags&flagBridge != 0 {
		r.Kind = KindBridge
	}
	r.Name = d.text(MaxName)
	r.NetworkID = d.text(MaxNetworkID)
	r.Version = d.text(MaxVersion)
	for range d.count(MaxAddrs) {
		r.Addrs = append(r.Addrs, d.addr())
	}
	for range d.count(MaxUnderlay) {
		r.Underlay = append(r.Underlay, d.text(MaxUnderlayLen))
	}
	for range d.count(MaxPrefixes) {
		addr := d.addr()
		r.Prefixes = append(r.Prefixes, netip.PrefixFrom(addr, int(d.byte())))
	}
	r.Annotations = d.annotations()
	if d.err == nil && len(d.rest) != 0 {
		d.fail(fmt.Sprintf("%d bytes too many", len(d.rest)))
	}
	return r, d.err
}

// decoder reads from the front of rest. After the first error everything reads
// as zero and err stays.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(why string) {
	if d.err == nil {
		d.err = fmt.Errorf("%s: %w", why, ErrMalformed)
		d.rest = nil
	}
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n > len(d.rest) {
		d.fail("cut short")
		return nil
	}
	out := d.rest[:n]
	d.rest = d.rest[n:]
	return out
}

func (d *decoder) byte() byte {
	if raw := d.take(1); raw != nil {
		return raw[0]
	}
	return 0
}

func (d *decoder) uint16() int {
	if raw := d.take(2); raw != nil {
		return int(binary.BigEndian.Uint16(raw))
	}
	return 0
}

func (d *decoder) count(limit int) int {
	return d.bounded(int(d.byte()), limit)
}

func (d *decoder) text(limit int) string {
	return string(d.take(d.bounded(d.uint16(), limit)))
}

func (d *decoder) bounded(n, limit int) int {
	if n <= limit {
		return n
	}
	if d.err == nil {
		d.err = fmt.Errorf("%d instead of at most %d: %w", n, limit, ErrLimit)
		d.rest = nil
	}
	return 0
}

func (d *decoder) addr() netip.Addr {
	n := int(d.byte())
	if n != 4 && n != 16 {
		d.fail("address length")
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(d.take(n)) // false only after d failed
	return addr
}

// annotations come sorted and without duplicates, so that there is one encoding only.
func (d *decoder) annotations() map[string]string {
	n := d.count(MaxAnnotations)
	if n == 0 {
		return nil
	}
	out := make(map[string]string, n)
	last := ""
	for range n {
		key := d.text(MaxAnnotationKey)
		if key <= last { // also refuses the empty key
			d.fail("annotations out of order")
		}
		out[key] = d.text(MaxAnnotationValue)
		last = key
	}
	return out
}
