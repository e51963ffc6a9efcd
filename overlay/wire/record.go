package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Kinds of members. A member may be of a kind that this version does not know: it is
// neither of these, and what is for one of them is not for it.
const (
	KindNode   = "node"   // a machine that may become part of a cluster
	KindBridge = "bridge" // a person's laptop
)

// signContext separates these signatures from all others of the same key.
const signContext = "record/v2"

// Offsets of the signed form, see the package comment.
const (
	offsetID   = 1
	offsetSeq  = offsetID + len(identity.ID{})
	offsetSig  = offsetSeq + 8
	offsetBody = offsetSig + 64
)

// Record is what one member says about itself. It holds nothing secret: every
// member reads every record. A Record that Open returned is to be treated as
// immutable, since it is shared.
type Record struct {
	ID          identity.ID
	Seq         uint64 // grows with every version of the record
	Name        string // a DNS label
	Kind        string // KindNode, KindBridge or one that a later version knows
	NetworkID   string // the cluster it belongs to; may be empty for a bridge
	Version     string // of the software; may be empty
	Addrs       []netip.Addr
	Pinned      bool             // Addrs will not change any more
	Underlay    []netip.AddrPort // where it can be dialled, see ValidUnderlay
	Prefixes    []netip.Prefix   // what lies behind it
	Annotations map[string]string
	Left        bool          // said goodbye
	Run         [RunSize]byte // random name of the author's process; zero: not said
	Credential  []byte        // what proves the author's rights; opaque
	// Unknown are the fields of a later version, as they came. Seal writes them again.
	Unknown []byte
}

// Same reports whether two records say the same, whoever says it and in whichever version.
func (r Record) Same(other Record) bool {
	return r.Name == other.Name && r.Kind == other.Kind && r.NetworkID == other.NetworkID &&
		r.Version == other.Version && r.Pinned == other.Pinned && r.Left == other.Left && r.Run == other.Run &&
		slices.Equal(r.Addrs, other.Addrs) && slices.Equal(r.Underlay, other.Underlay) &&
		slices.Equal(r.Prefixes, other.Prefixes) && maps.Equal(r.Annotations, other.Annotations) &&
		bytes.Equal(r.Credential, other.Credential) && bytes.Equal(r.Unknown, other.Unknown)
}

// Signed is the encoded and signed form of a Record. Only Open tells whether it
// is one. It is never modified.
type Signed []byte

// Head returns the author and the sequence number that s claims, without
// verifying anything: good for dropping what is known already, for nothing else.
func (s Signed) Head() (id identity.ID, seq uint64, ok bool) {
	if len(s) < offsetBody || len(s) > MaxRecord || s[0] != recordVersion {
		return identity.ID{}, 0, false
	}
	return identity.ID(s[offsetID:offsetSeq]), binary.BigEndian.Uint64(s[offsetSeq:offsetSig]), true
}

// Seal signs r as its author. r.ID may be zero and is then key's. Whatever Open
// would refuse is an error here already.
func Seal(key identity.Key, r Record) (Signed, error) {
	if key.IsZero() || (!r.ID.IsZero() && r.ID != key.ID()) {
		return nil, fmt.Errorf("seal record: %w", ErrKey)
	}
	r.ID = key.ID()
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("seal record: %w", err)
	}
	out := make([]byte, offsetBody, 512)
	out[0] = recordVersion
	copy(out[offsetID:], r.ID[:])
	binary.BigEndian.PutUint64(out[offsetSeq:], r.Seq)
	out = appendBody(out, r)
	if len(out) > MaxRecord {
		return nil, fmt.Errorf("seal record: %d bytes instead of at most %d: %w", len(out), MaxRecord, ErrLimit)
	}
	copy(out[offsetSig:], key.Sign(signContext, signedPart(out)))
	return out, nil
}

// Open verifies s and decodes it. Nothing of s is interpreted before the
// signature of the claimed author holds. The Record does not share memory with s.
func Open(s Signed) (Record, error) {
	if len(s) > MaxRecord {
		return Record{}, fmt.Errorf("open record: %d bytes: %w", len(s), ErrLimit)
	}
	if len(s) < offsetBody {
		return Record{}, fmt.Errorf("open record: %d bytes: %w", len(s), ErrMalformed)
	}
	if s[0] != recordVersion {
		return Record{}, fmt.Errorf("open record: version %d: %w", s[0], ErrVersion)
	}
	id, seq, _ := s.Head() // holds after the checks above
	if !identity.Verify(id, signContext, signedPart(s), s[offsetSig:offsetBody]) {
		return Record{}, fmt.Errorf("open record of %s: %w", id.Short(), ErrSignature)
	}
	r, err := readBody(s[offsetBody:])
	if err != nil {
		return Record{}, fmt.Errorf("open record of %s: %w", id.Short(), err)
	}
	r.ID, r.Seq = id, seq
	if err := r.validate(); err != nil {
		return Record{}, fmt.Errorf("open record of %s: %w", id.Short(), err)
	}
	return r, nil
}

// signedPart is everything but the signature itself.
func signedPart(s []byte) []byte {
	out := make([]byte, 0, len(s)-(offsetBody-offsetSig))
	out = append(out, s[:offsetSig]...)
	return append(out, s[offsetBody:]...)
}
