package member

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Summary is equal for two tables whose live members have the same records. It is
// computed once for each Version.
func (t *Table) Summary() wire.Summary {
	if t.summed == t.version {
		return t.summary
	}
	sum := sha256.New()
	var entry [len(identity.ID{}) + 8 + 4]byte
	for _, e := range t.entries {
		copy(entry[:], e.ID[:])
		binary.BigEndian.PutUint64(entry[len(e.ID):], e.Seq)
		binary.BigEndian.PutUint32(entry[len(e.ID)+8:], e.check)
		sum.Write(entry[:])
	}
	t.summary = wire.Summary{Hash: [32]byte(sum.Sum(nil)), Count: uint32(len(t.entries))}
	t.summed = t.version
	return t.summary
}

// Digests says which records of live members are known, in as few messages as
// the limits allow. Who is gone is in none of them, and so starts no exchange.
func (t *Table) Digests() []wire.Digest {
	var out []wire.Digest
	now := wire.Digest{}
	for _, e := range t.entries {
		if len(now.Entries) == wire.MaxDigest {
			now.Last = now.Entries[len(now.Entries)-1].ID
			out = append(out, now)
			now = wire.Digest{After: now.Last}
		}
		now.Entries = append(now.Entries, wire.Entry{ID: e.ID, Seq: e.Seq, Check: e.check})
	}
	return append(out, now)
}

// Difference is what two tables can do for each other.
type Difference struct {
	Missing []identity.ID // this table has newer records
	Wanted  []identity.ID // the other one has
}

// Compare compares with a digest of peer. Of two records of one number this table's
// is missing there: whoever has the lesser one then learns of the other. Of those who are gone here two things
// are missing there: a goodbye, and the last record of the peer itself.
func (t *Table) Compare(peer identity.ID, d wire.Digest) Difference {
	var out Difference
	i, _ := t.find(d.After)
	if i < len(t.entries) && t.entries[i].ID == d.After {
		i++
	}
	theirs := d.Entries
	for i < len(t.entries) && (d.Last.IsZero() || t.entries[i].ID.Compare(d.Last) <= 0) {
		e := t.entries[i]
		order := -1
		if len(theirs) > 0 {
			order = e.ID.Compare(theirs[0].ID)
		}
		switch {
		case order < 0:
			out.Missing = append(out.Missing, e.ID)
			i++
			continue
		case order > 0:
			t.compareGone(peer, theirs[0], &out)
		case e.Seq > theirs[0].Seq, e.Seq == theirs[0].Seq && e.check != theirs[0].Check:
			out.Missing = append(out.Missing, e.ID)
			i++
		case e.Seq < theirs[0].Seq:
			out.Wanted = append(out.Wanted, e.ID)
			i++
		default:
			i++
		}
		theirs = theirs[1:]
	}
	for _, their := range theirs {
		t.compareGone(peer, their, &out)
	}
	return out
}

// compareGone compares with an entry of somebody who is not live here.
func (t *Table) compareGone(peer identity.ID, their wire.Entry, out *Difference) {
	stone, ok := t.gone.stones[their.ID]
	switch {
	case !ok || their.Seq > stone.seq:
		out.Wanted = append(out.Wanted, their.ID)
	case their.Seq < stone.seq && (stone.left || their.ID == peer):
		out.Missing = append(out.Missing, their.ID)
	}
}
