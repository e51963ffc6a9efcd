package member

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"github.com/kairos-io/kairos/overlay/wire"
)

// Verified is a record whose signature holds. Only Verify makes one: checking is
// the expensive part, and is not for the table's owner to wait for.
type Verified struct {
	record wire.Record
	signed wire.Signed
	check  uint32 // see wire.Entry
}

// Verify opens s (errors of wire.Open) and keeps a copy of it. It may be called
// by any goroutine.
func Verify(s wire.Signed) (Verified, error) {
	r, err := wire.Open(s)
	if err != nil {
		return Verified{}, err
	}
	sum := sha256.Sum256(s)
	return Verified{record: r, signed: bytes.Clone(s), check: binary.BigEndian.Uint32(sum[:])}, nil
}

// Record returns what the record says. It is shared and must not be modified.
func (v Verified) Record() wire.Record { return v.record }
