package wire

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Tags of the body's fields. A later version adds tags and changes none of these: what
// it writes must mean the same to whoever knows these only.
const (
	tagKind        = 1
	tagName        = 2
	tagNetworkID   = 3
	tagVersion     = 4
	tagAddrs       = 5
	tagPinned      = 6
	tagUnderlay    = 7
	tagPrefixes    = 8
	tagAnnotations = 9
	tagLeft        = 10
	tagRun         = 11
	tagCredential  = 12
	tagLast        = tagCredential // the highest one that this version knows

	// tagCritical is set in the tag of a field that must not be passed over.
	tagCritical = 0x80

	fieldHeader = 3 // tag and length
)

// field is how one field of a Record is written and read. A field whose value is empty
// is not there.
type field struct {
	write func(out []byte, r *Record) []byte
	read  func(d *decoder, r *Record)
}

// fields holds what this version knows, by tag.
var fields = [tagLast + 1]field{
	tagKind: {
		func(out []byte, r *Record) []byte { return append(out, r.Kind...) },
		func(d *decoder, r *Record) { r.Kind = d.all(MaxKind) },
	},
	tagName: {
		func(out []byte, r *Record) []byte { return append(out, r.Name...) },
		func(d *decoder, r *Record) { r.Name = d.all(MaxName) },
	},
	tagNetworkID: {
		func(out []byte, r *Record) []byte { return append(out, r.NetworkID...) },
		func(d *decoder, r *Record) { r.NetworkID = d.all(MaxNetworkID) },
	},
	tagVersion: {
		func(out []byte, r *Record) []byte { return append(out, r.Version...) },
		func(d *decoder, r *Record) { r.Version = d.all(MaxVersion) },
	},
	tagAddrs: {
		func(out []byte, r *Record) []byte { return appendEach(out, r.Addrs, appendAddr) },
		func(d *decoder, r *Record) { r.Addrs = readEach(d, MaxAddrs, d.addr) },
	},
	tagPinned: {
		func(out []byte, r *Record) []byte { return appendFlag(out, r.Pinned) },
		func(d *decoder, r *Record) { r.Pinned = d.flag() },
	},
	tagUnderlay: {
		func(out []byte, r *Record) []byte { return appendEach(out, r.Underlay, appendAddrPort) },
		func(d *decoder, r *Record) { r.Underlay = readEach(d, MaxUnderlay, d.addrPort) },
	},
	tagPrefixes: {
		func(out []byte, r *Record) []byte { return appendEach(out, r.Prefixes, appendPrefix) },
		func(d *decoder, r *Record) { r.Prefixes = readEach(d, MaxPrefixes, d.prefix) },
	},
	tagAnnotations: {
		func(out []byte, r *Record) []byte { return appendAnnotations(out, r.Annotations) },
		func(d *decoder, r *Record) { r.Annotations = d.annotations() },
	},
	tagLeft: {
		func(out []byte, r *Record) []byte { return appendFlag(out, r.Left) },
		func(d *decoder, r *Record) { r.Left = d.flag() },
	},
	tagRun: {
		func(out []byte, r *Record) []byte {
			if r.Run == [RunSize]byte{} {
				return out
			}
			return append(out, r.Run[:]...)
		},
		func(d *decoder, r *Record) { r.Run = d.run() },
	},
	tagCredential: {
		func(out []byte, r *Record) []byte { return append(out, r.Credential...) },
		func(d *decoder, r *Record) { r.Credential = []byte(d.all(MaxCredential)) },
	},
}

// appendBody encodes everything but ID and sequence. r is valid, so that every length fits.
func appendBody(out []byte, r Record) []byte {
	for tag := 1; tag <= tagLast; tag++ {
		begin := len(out)
		out = fields[tag].write(append(out, byte(tag), 0, 0), &r)
		size := len(out) - begin - fieldHeader
		if size == 0 {
			out = out[:begin]
			continue
		}
		binary.BigEndian.PutUint16(out[begin+1:], uint16(size))
	}
	return append(out, r.Unknown...) // whose tags are all higher
}

// readBody decodes what appendBody wrote, and nothing else. It checks form and
// counts; validate checks the rest.
func readBody(body []byte) (r Record, err error) {
	err = eachField(body, func(tag byte, whole []byte) error {
		switch {
		case tag <= tagLast:
			d := decoder{rest: whole[fieldHeader:]}
			if len(d.rest) == 0 {
				d.fail("empty")
			}
			fields[tag].read(&d, &r)
			if len(d.rest) != 0 {
				d.fail(fmt.Sprintf("%d bytes too many", len(d.rest)))
			}
			return d.err
		case tag&tagCritical != 0:
			return fmt.Errorf("it may not be passed over: %w", ErrVersion)
		}
		r.Unknown = append(r.Unknown, whole...)
		return nil
	})
	return r, err
}

// eachField calls visit with every field of a body. Their tags ascend, so that there is
// one order only and no field twice; 0 is no tag.
func eachField(body []byte, visit func(tag byte, whole []byte) error) error {
	last := byte(0)
	d := decoder{rest: body}
	for len(d.rest) > 0 {
		begin := d.rest
		tag, size := d.byte(), d.uint16()
		d.take(size)
		if tag <= last {
			d.fail("out of order")
		}
		if d.err == nil {
			d.err = visit(tag, begin[:fieldHeader+size])
		}
		if d.err != nil {
			return fmt.Errorf("field %d: %w", tag, d.err)
		}
		last = tag
	}
	return nil
}

func appendFlag(out []byte, set bool) []byte {
	if set {
		return append(out, 1)
	}
	return out
}

func appendText(out []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(out, uint16(len(s))), s...)
}

func appendEach[T any](out []byte, list []T, one func([]byte, T) []byte) []byte {
	for _, v := range list {
		out = one(out, v)
	}
	return out
}

func appendAddr(out []byte, a netip.Addr) []byte {
	raw := a.AsSlice()
	return append(append(out, byte(len(raw))), raw...)
}

func appendAddrPort(out []byte, a netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(appendAddr(out, a.Addr()), a.Port())
}

func appendPrefix(out []byte, p netip.Prefix) []byte {
	return append(appendAddr(out, p.Addr()), byte(p.Bits()))
}

func appendAnnotations(out []byte, annotations map[string]string) []byte {
	for _, k := range slices.Sorted(maps.Keys(annotations)) {
		out = appendText(appendText(out, k), annotations[k])
	}
	return out
}
