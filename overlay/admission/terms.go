package admission

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Specification constants of terms.
const (
	runSize = 16
	// TermsSize is the length of encoded terms in bytes, whatever they say: a longer run
	// of credentials must not show in the length of a message.
	TermsSize = 1024

	tagEnd         = 0
	tagRun         = 1
	tagFeatures    = 2
	tagDigest      = 3
	tagCredentials = 4
	critical       = 0x80 // tags from here on may not be skipped

	fieldHead = 3 // tag or kind 1 byte, length 2 bytes
)

// ErrTerms is returned, wrapped, when the other side proved a door and then said
// something that this version cannot go on with.
var ErrTerms = errors.New("the other side speaks of something that this version does not know: upgrade the older of the two")

// Run names one run of a process: random, public, and new at each start.
type Run [runSize]byte

// CredentialKind says what a credential is.
type CredentialKind uint8

// The kinds of credentials. Join is made and checked by this package, the others are
// carried.
const (
	CredentialJoin      CredentialKind = 1 // knows the join half of the door
	CredentialEnrolment CredentialKind = 2 // was made a member before
	CredentialTicket    CredentialKind = 3 // may come in once
)

// Credential is one reason to be let in. The value is opaque.
type Credential struct {
	Kind  CredentialKind
	Value []byte
}

// Terms are what one end says of itself, sealed. The zero value but for Run is valid.
type Terms struct {
	Run         Run
	Features    uint64       // bit set
	Digest      [32]byte     // of what the speaker knows of trust
	Credentials []Credential // ascending kinds, without CredentialJoin
}

// encode pads terms with the join credential in them to TermsSize.
func (t Terms) encode(join []byte) ([]byte, error) {
	out := make([]byte, 0, TermsSize)
	out = appendField(out, tagRun, t.Run[:])
	if t.Features != 0 {
		out = appendField(out, tagFeatures, binary.LittleEndian.AppendUint64(nil, t.Features))
	}
	if t.Digest != [32]byte{} {
		out = appendField(out, tagDigest, t.Digest[:])
	}
	var list []byte
	if join != nil {
		list = appendField(list, byte(CredentialJoin), join)
	}
	last := CredentialJoin
	for _, c := range t.Credentials {
		if c.Kind <= last {
			return nil, fmt.Errorf("encode terms: credential %d after %d", c.Kind, last)
		}
		last = c.Kind
		if len(c.Value) > TermsSize {
			return nil, fmt.Errorf("encode terms: a credential of %d bytes", len(c.Value))
		}
		list = appendField(list, byte(c.Kind), c.Value)
	}
	if len(list) > 0 {
		if len(out)+fieldHead+len(list) > TermsSize {
			return nil, fmt.Errorf("encode terms: %d bytes of credentials do not fit", len(list))
		}
		out = appendField(out, tagCredentials, list)
	}
	return out[:TermsSize], nil // what is above the length of a fresh slice is zero
}

func appendField(to []byte, tag byte, value []byte) []byte {
	to = append(to, tag)
	to = binary.BigEndian.AppendUint16(to, uint16(len(value)))
	return append(to, value...)
}

// field is one tag or kind with its value.
type field struct {
	tag   byte
	value []byte
}

// nextField cuts a field off; tags must be greater than last.
func nextField(from []byte, last byte) (f field, rest []byte, err error) {
	if len(from) < fieldHead {
		return field{}, nil, fmt.Errorf("a field is cut off: %w", ErrTerms)
	}
	size := int(binary.BigEndian.Uint16(from[1:fieldHead]))
	f.tag, from = from[0], from[fieldHead:]
	switch {
	case f.tag <= last:
		return field{}, nil, fmt.Errorf("field %d after %d: %w", f.tag, last, ErrTerms)
	case size > len(from):
		return field{}, nil, fmt.Errorf("field %d is cut off: %w", f.tag, ErrTerms)
	}
	f.value = from[:size]
	return f, from[size:], nil
}

// parseTerms reads what encode wrote, or a later version of it; join is nil when that
// credential is missing. The result keeps nothing of raw. The error wraps ErrTerms.
func parseTerms(raw []byte) (t Terms, join []byte, err error) {
	var last byte
	var hasRun bool
	for len(raw) > 0 && raw[0] != tagEnd {
		var f field
		if f, raw, err = nextField(raw, last); err != nil {
			return Terms{}, nil, fmt.Errorf("read terms: %w", err)
		}
		last = f.tag
		switch {
		case f.tag == tagRun && len(f.value) == runSize:
			t.Run, hasRun = Run(f.value), true
		case f.tag == tagFeatures:
			var low [8]byte
			copy(low[:], f.value)
			t.Features = binary.LittleEndian.Uint64(low[:])
		case f.tag == tagDigest && len(f.value) == len(t.Digest):
			t.Digest = [32]byte(f.value)
		case f.tag == tagCredentials:
			t.Credentials, join, err = parseCredentials(f.value)
		case f.tag <= tagCredentials:
			err = fmt.Errorf("field %d has %d bytes: %w", f.tag, len(f.value), ErrTerms)
		case f.tag >= critical:
			err = fmt.Errorf("field %d is unknown and critical: %w", f.tag, ErrTerms)
		}
		if err != nil {
			return Terms{}, nil, fmt.Errorf("read terms: %w", err)
		}
	}
	if !hasRun {
		return Terms{}, nil, fmt.Errorf("read terms: no run: %w", ErrTerms)
	}
	return t, join, nil
}

// parseCredentials reads the list. A credential of an unknown kind is kept like those
// that are known: it is for whoever checks credentials.
func parseCredentials(raw []byte) (list []Credential, join []byte, err error) {
	var last byte
	for len(raw) > 0 {
		var f field
		if f, raw, err = nextField(raw, last); err != nil {
			return nil, nil, fmt.Errorf("credentials: %w", err)
		}
		last = f.tag
		value := append([]byte{}, f.value...)
		if CredentialKind(f.tag) == CredentialJoin {
			join = value
			continue
		}
		list = append(list, Credential{Kind: CredentialKind(f.tag), Value: value})
	}
	return list, join, nil
}
