// Package trust is what a cluster will vouch with: statements that anybody can verify
// against a key, and the first of them, the founder record. The issuer's key signs it,
// which is born with the cluster, lies on its servers only, and does not follow from the
// token: whoever has that learns nothing of it. The package does no I/O.
package trust

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kairos-io/kairos/overlay/identity"
)

// A statement is its kind, its version, the beginning of the signer's ID, fields, and a
// signature (Ed25519, RFC 8032) over all that and the network that it is made for. A field
// is a tag, the length of its value in two bytes, and the value; tags ascend. One that is
// not known is kept; one with tagCritical set must be known.
const (
	kindFounder = 1
	version     = 1

	hintSize    = 4
	headSize    = 2 + hintSize
	fieldSize   = 3
	signedSize  = 64
	maxSize     = 4 << 10
	tagCritical = 0x80

	founderContext = "trust/founder/1"
)

// Tags of a founder record.
const (
	tagUID = 1 + iota
	tagCA
	tagIssuer
	tagLast = tagIssuer
)

// ErrFounder is wrapped by whatever is wrong with a founder record.
var ErrFounder = errors.New("not a founder record of this network")

// Founder says which key speaks for a cluster.
type Founder struct {
	UID    [16]byte    // of the cluster
	CA     [32]byte    // SHA-256 of the public key (SubjectPublicKeyInfo) of its first certificate authority
	Issuer identity.ID // the public half of the issuer's key

	unknown []byte // fields of a later version
}

// Seal makes the record, signed with the issuer's key, for the network that is publicly
// called netID.
func (f Founder) Seal(key identity.Key, netID [32]byte) ([]byte, error) {
	if key.ID() != f.Issuer {
		return nil, errors.New("seal founder record: another key than the one that it names")
	}
	out := append([]byte{kindFounder, version}, f.Issuer[:hintSize]...)
	for i, value := range [][]byte{f.UID[:], f.CA[:], f.Issuer[:]} {
		out = append(binary.BigEndian.AppendUint16(append(out, byte(tagUID+i)), uint16(len(value))), value...)
	}
	out = append(out, f.unknown...)
	return append(out, key.Sign(founderContext, signed(netID, out))...), nil
}

// Open verifies a record: it names the key that signed it. Whether that key is to be
// believed depends on where the record came from.
func Open(raw []byte, netID [32]byte) (f Founder, err error) {
	switch {
	case len(raw) < headSize+signedSize || len(raw) > maxSize:
		return f, fmt.Errorf("%d bytes: %w", len(raw), ErrFounder)
	case raw[0] != kindFounder || raw[1] != version:
		return f, fmt.Errorf("kind %d of version %d: %w", raw[0], raw[1], ErrFounder)
	}
	said, sig := raw[:len(raw)-signedSize], raw[len(raw)-signedSize:]
	if err := f.read(said[headSize:]); err != nil {
		return Founder{}, err
	}
	switch {
	case !bytes.Equal(said[2:headSize], f.Issuer[:hintSize]):
		return Founder{}, fmt.Errorf("made by another key than it names: %w", ErrFounder)
	case !identity.Verify(f.Issuer, founderContext, signed(netID, said), sig):
		return Founder{}, fmt.Errorf("wrong signature: %w", ErrFounder)
	}
	return f, nil
}

// signed is what the signature stands for.
func signed(netID [32]byte, said []byte) []byte { return append(netID[:], said...) }

// read takes the fields apart.
func (f *Founder) read(fields []byte) error {
	into := [tagLast + 1][]byte{tagUID: f.UID[:], tagCA: f.CA[:], tagIssuer: f.Issuer[:]}
	last := byte(0)
	for len(fields) > 0 {
		if len(fields) < fieldSize || len(fields)-fieldSize < int(binary.BigEndian.Uint16(fields[1:])) {
			return fmt.Errorf("it ends within a field: %w", ErrFounder)
		}
		tag, size := fields[0], fieldSize+int(binary.BigEndian.Uint16(fields[1:]))
		whole := fields[:size]
		switch {
		case tag <= last || tag <= tagLast && tag != last+1:
			return fmt.Errorf("tag %d follows tag %d: %w", tag, last, ErrFounder)
		case tag <= tagLast && len(whole)-fieldSize != len(into[tag]):
			return fmt.Errorf("field %d has %d bytes: %w", tag, len(whole)-fieldSize, ErrFounder)
		case tag <= tagLast:
			copy(into[tag], whole[fieldSize:])
		case tag&tagCritical != 0:
			return fmt.Errorf("field %d must not be passed over, and this version does not know it: %w", tag, ErrFounder)
		default:
			f.unknown = append(f.unknown, whole...)
		}
		last, fields = tag, fields[size:]
	}
	if last < tagLast {
		return fmt.Errorf("field %d is missing: %w", last+1, ErrFounder)
	}
	return nil
}
