package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

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

// flag is there or not: there is no other value.
func (d *decoder) flag() bool {
	if d.byte() != 1 {
		d.fail("neither set nor absent")
	}
	return d.err == nil
}

// all is the rest, as text.
func (d *decoder) all(limit int) string {
	return string(d.take(d.bounded(len(d.rest), limit)))
}

// readEach reads one after the other until nothing is left.
func readEach[T any](d *decoder, limit int, one func() T) []T {
	var out []T
	for len(d.rest) > 0 {
		if len(out) == limit {
			d.bounded(limit+1, limit)
			break
		}
		out = append(out, one())
	}
	return out
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

func (d *decoder) addrPort() netip.AddrPort {
	addr := d.addr()
	return netip.AddrPortFrom(addr, uint16(d.uint16()))
}

func (d *decoder) prefix() netip.Prefix {
	addr := d.addr()
	return netip.PrefixFrom(addr, int(d.byte()))
}

func (d *decoder) run() (out [RunSize]byte) {
	copy(out[:], d.take(len(out)))
	if out == [RunSize]byte{} {
		d.fail("no name of a run")
	}
	return out
}

// annotations come sorted and without duplicates, so that there is one encoding only.
func (d *decoder) annotations() map[string]string {
	out := make(map[string]string)
	last := ""
	for len(d.rest) > 0 {
		if len(out) == MaxAnnotations {
			d.bounded(MaxAnnotations+1, MaxAnnotations)
			break
		}
		key := d.text(MaxAnnotationKey)
		if key <= last { // also refuses the empty key
			d.fail("annotations out of order")
		}
		out[key] = d.text(MaxAnnotationValue)
		last = key
	}
	return out
}
