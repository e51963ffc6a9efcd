package gossip

import (
	"hash/maphash"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/wire"
)

// peer is what the core knows of one connected peer. While both agree, and
// nothing is due, it holds no memory that grows with the mesh.
type peer struct {
	id    identity.ID
	index int // in core.peers

	// What is to be sent. The IDs are those of records that changed since the last
	// batch; nil when there are none.
	dirty   map[identity.ID]struct{}
	want    wire.Want
	summary bool
	digest  bool
	busy    bool          // a batch is on its way
	broken  time.Duration // the last wait after a broken stream; 0: it is whole
	retry   time.Time     // nothing is sent before
	leaving chan struct{} // closed when the peer has read everything; nil: not leaving

	// The comparison of tables, see sync.go.
	fresh     bool        // no summary came since the peer is up
	differs   *difference // its last summary was another than ours; nil: it was not
	rechecked bool        // it was sent a newer summary since
	fruitless int         // exchanges in a row that brought nothing
	quiet     time.Time   // no exchange before, because of that

	// What it may have as an answer, in bytes of records.
	credit   int
	credited time.Time
	asked    request // what was answered last
}

// difference is when a peer's summary was found to be another one.
type difference struct {
	due       time.Time // of what is done about it
	eager     bool      // this side begins
	completed uint64    // exchanges until then
}

// request is a digest or want that was answered.
type request struct {
	hash    uint64
	version uint64 // of the table
	when    time.Time
}

// mark has the newest record of id sent.
func (p *peer) mark(id identity.ID) {
	if p.dirty == nil {
		p.dirty = make(map[identity.ID]struct{}, 1)
	}
	p.dirty[id] = struct{}{}
}

// knows drops a record from what is to be sent.
func (p *peer) knows(id identity.ID) {
	delete(p.dirty, id)
	if len(p.dirty) == 0 {
		p.dirty = nil // a map keeps the room of its best times
	}
}

func (p *peer) due() bool {
	return len(p.dirty) > 0 || len(p.want) > 0 || p.summary || p.digest
}

// batch is what goes to a peer at once, in this order, at most one delta of it.
type batch struct {
	delta   wire.Delta
	want    wire.Want
	digests []wire.Digest
	summary *wire.Summary
	last    bool // nothing follows: the peer is to say that it has read it all
}

func (b *batch) empty() bool {
	return len(b.delta) == 0 && len(b.want) == 0 && len(b.digests) == 0 && b.summary == nil
}

// messages returns it as messages.
func (b *batch) messages() []wire.Message {
	var out []wire.Message
	if len(b.delta) > 0 {
		out = append(out, b.delta)
	}
	if len(b.want) > 0 {
		out = append(out, b.want)
	}
	for _, d := range b.digests {
		out = append(out, d)
	}
	if b.summary != nil {
		out = append(out, *b.summary)
	}
	return out
}

// seed makes hashes of requests that no peer can foresee.
var seed = maphash.MakeSeed()

func hashDigest(d wire.Digest) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	maphash.WriteComparable(&h, [2]identity.ID{d.After, d.Last})
	for _, e := range d.Entries {
		maphash.WriteComparable(&h, e)
	}
	return h.Sum64()
}

func hashWant(w wire.Want) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, id := range w {
		maphash.WriteComparable(&h, id)
	}
	return h.Sum64()
}
