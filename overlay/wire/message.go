package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Kinds of messages. Readers skip kinds that they do not know by their length, so
// that a later version may add some; how a known kind is encoded never changes,
// apart from bytes after the end of a summary.
const (
	kindDigest  = 1
	kindDelta   = 2
	kindSummary = 3
	kindWant    = 4
)

const (
	messageHeader = 6
	idSize        = len(identity.ID{})
	entrySize     = idSize + 8 + 4
	summarySize   = 32 + 4
)

// Message is one gossip message: a Summary, Digest, Delta or Want.
type Message interface {
	kind() byte
	appendTo(out []byte) ([]byte, error)
}

// Summary is equal for two members whose live records are equal.
type Summary struct {
	Hash  [32]byte // of IDs, sequence numbers and checks
	Count uint32   // how many there are
}

// Entry says which record of a member somebody knows.
type Entry struct {
	ID  identity.ID
	Seq uint64
	// Check tells records of one number apart: two machines with one key make them.
	Check uint32
}

// Digest says which records of a range of members somebody knows, and by that
// also whom of the range it does not know.
type Digest struct {
	After, Last identity.ID // the range: After is not in it; Last is, and zero is no end
	Entries     []Entry     // in the range and in order of ID; at most MaxDigest
}

// Delta carries records, each at most MaxRecord, at most MaxDelta in a message.
type Delta []Signed

// Want asks for the records of these members, at most MaxDigest, in order of ID.
type Want []identity.ID

func (Summary) kind() byte { return kindSummary }
func (Digest) kind() byte  { return kindDigest }
func (Delta) kind() byte   { return kindDelta }
func (Want) kind() byte    { return kindWant }

// Deltas splits records into as few messages as the limits allow, in order.
// Records over MaxRecord are left out: nobody would take them.
func Deltas(records []Signed) []Delta {
	var out []Delta
	var now Delta
	size := 0
	for _, r := range records {
		if len(r) > MaxRecord {
			continue
		}
		if !DeltaHolds(len(now), size, r) {
			out, now, size = append(out, now), nil, 0
		}
		now = append(now, r)
		size += 2 + len(r)
	}
	if len(now) > 0 {
		out = append(out, now)
	}
	return out
}

// DeltaHolds reports whether a delta with this many records of size bytes, 2 more
// for each included, has room for one more.
func DeltaHolds(records, size int, more Signed) bool {
	return records < MaxDelta && size+2+len(more) <= MaxMessage
}

// AppendMessage appends the encoding of m to dst. Messages over the limits are
// ErrLimit.
func AppendMessage(dst []byte, m Message) ([]byte, error) {
	begin := len(dst)
	out := append(dst, m.kind(), messageVersion, 0, 0, 0, 0)
	out, err := m.appendTo(out)
	if err != nil {
		return dst, fmt.Errorf("encode message: %w", err)
	}
	size := len(out) - begin - messageHeader
	if size > MaxMessage {
		return dst, fmt.Errorf("encode message of %d bytes: %w", size, ErrLimit)
	}
	binary.BigEndian.PutUint32(out[begin+2:], uint32(size))
	return out, nil
}

// MessageReader reads messages from a stream, and not one byte more.
type MessageReader struct {
	r       io.Reader
	pace    func(size int) error
	skipped uint64
}

// NewMessageReader reads from r. Before the body of a message is read, pace is called with the size of the whole message; it may
// block, and its error is Next's. A nil pace lets everything pass.
func NewMessageReader(r io.Reader, pace func(size int) error) *MessageReader {
	if pace == nil {
		pace = func(int) error { return nil }
	}
	return &MessageReader{r: r, pace: pace}
}

// Skipped is how many messages of unknown kinds there were.
func (m *MessageReader) Skipped() uint64 { return m.skipped }

// Next returns the next message of a known kind. At the end of the stream it
// returns io.EOF, inside of a message io.ErrUnexpectedEOF. Another version is
// ErrVersion: then not even the length means what it seems to. After an error the
// stream is of no use any more.
func (m *MessageReader) Next() (Message, error) {
	for {
		var header [messageHeader]byte
		if _, err := io.ReadFull(m.r, header[:]); err != nil {
			if err == io.EOF {
				return nil, io.EOF
			}
			return nil, fmt.Errorf("read message: %w", err)
		}
		size := binary.BigEndian.Uint32(header[2:])
		switch {
		case header[1] != messageVersion:
			return nil, fmt.Errorf("read message: version %d: %w", header[1], ErrVersion)
		case size > MaxMessage:
			return nil, fmt.Errorf("read message: %d bytes: %w", size, ErrLimit)
		}
		if err := m.pace(messageHeader + int(size)); err != nil {
			return nil, err
		}
		if !knownKind(header[0]) {
			m.skipped++
			if _, err := io.CopyN(io.Discard, m.r, int64(size)); err != nil {
				return nil, fmt.Errorf("skip message: %w", noEOF(err))
			}
			continue
		}
		var body bytes.Buffer // grows with what arrives, not with what is announced
		if _, err := io.CopyN(&body, m.r, int64(size)); err != nil {
			return nil, fmt.Errorf("read message: %w", noEOF(err))
		}
		message, err := decodeMessage(header[0], body.Bytes())
		if err != nil {
			return nil, fmt.Errorf("read message: %w", err)
		}
		return message, nil
	}
}

// noEOF is err where the stream may not end.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func knownKind(kind byte) bool { return kind >= kindDigest && kind <= kindWant }

// decodeMessage decodes the body of a known kind. Deltas share memory with it.
func decodeMessage(kind byte, body []byte) (Message, error) {
	switch kind {
	case kindDigest:
		return readDigest(body)
	case kindDelta:
		return readDelta(body)
	case kindWant:
		return readWant(body)
	}
	return readSummary(body)
}

func (s Summary) appendTo(out []byte) ([]byte, error) {
	return binary.BigEndian.AppendUint32(append(out, s.Hash[:]...), s.Count), nil
}

func readSummary(body []byte) (Message, error) {
	if len(body) < summarySize {
		return nil, fmt.Errorf("summary of %d bytes: %w", len(body), ErrMalformed)
	}
	return Summary{Hash: [32]byte(body), Count: binary.BigEndian.Uint32(body[32:])}, nil
}

func (d Digest) appendTo(out []byte) ([]byte, error) {
	if len(d.Entries) > MaxDigest {
		return nil, fmt.Errorf("digest of %d members: %w", len(d.Entries), ErrLimit)
	}
	out = append(append(out, d.After[:]...), d.Last[:]...)
	for _, e := range d.Entries {
		out = binary.BigEndian.AppendUint64(append(out, e.ID[:]...), e.Seq)
		out = binary.BigEndian.AppendUint32(out, e.Check)
	}
	return out, nil
}

func readDigest(body []byte) (Message, error) {
	switch {
	case len(body) > 2*idSize+MaxDigest*entrySize:
		return nil, fmt.Errorf("digest of %d bytes: %w", len(body), ErrLimit)
	case len(body) < 2*idSize || (len(body)-2*idSize)%entrySize != 0:
		return nil, fmt.Errorf("digest of %d bytes: %w", len(body), ErrMalformed)
	}
	d := Digest{After: identity.ID(body), Last: identity.ID(body[idSize:])}
	body = body[2*idSize:]
	d.Entries = make([]Entry, 0, len(body)/entrySize)
	before := d.After
	for raw := range slices.Chunk(body, entrySize) {
		e := Entry{ID: identity.ID(raw), Seq: binary.BigEndian.Uint64(raw[idSize:]), Check: binary.BigEndian.Uint32(raw[idSize+8:])}
		if e.ID.Compare(before) <= 0 { // also refuses the zero ID
			return nil, fmt.Errorf("digest out of order: %w", ErrMalformed)
		}
		d.Entries, before = append(d.Entries, e), e.ID
	}
	if !d.Last.IsZero() && before.Compare(d.Last) > 0 {
		return nil, fmt.Errorf("digest beyond its range: %w", ErrMalformed)
	}
	return d, nil
}

func (w Want) appendTo(out []byte) ([]byte, error) {
	if len(w) > MaxDigest {
		return nil, fmt.Errorf("want of %d members: %w", len(w), ErrLimit)
	}
	for _, id := range w {
		out = append(out, id[:]...)
	}
	return out, nil
}

func readWant(body []byte) (Message, error) {
	if len(body) > MaxDigest*idSize {
		return nil, fmt.Errorf("want of %d bytes: %w", len(body), ErrLimit)
	}
	if len(body)%idSize != 0 {
		return nil, fmt.Errorf("want of %d bytes: %w", len(body), ErrMalformed)
	}
	out := make(Want, 0, len(body)/idSize)
	var before identity.ID
	for raw := range slices.Chunk(body, idSize) {
		id := identity.ID(raw)
		if id.Compare(before) <= 0 {
			return nil, fmt.Errorf("want out of order: %w", ErrMalformed)
		}
		out, before = append(out, id), id
	}
	return out, nil
}

func (d Delta) appendTo(out []byte) ([]byte, error) {
	if len(d) > MaxDelta {
		return nil, fmt.Errorf("delta of %d records: %w", len(d), ErrLimit)
	}
	for _, r := range d {
		if len(r) > MaxRecord {
			return nil, fmt.Errorf("record of %d bytes: %w", len(r), ErrLimit)
		}
		out = binary.BigEndian.AppendUint16(out, uint16(len(r)))
		out = append(out, r...)
	}
	return out, nil
}

// readDelta returns records that share memory with body and are not yet opened.
func readDelta(body []byte) (Message, error) {
	out := Delta{}
	for len(body) > 0 {
		if len(out) == MaxDelta {
			return nil, fmt.Errorf("delta of more than %d records: %w", MaxDelta, ErrLimit)
		}
		if len(body) < 2 {
			return nil, fmt.Errorf("delta: half a length: %w", ErrMalformed)
		}
		size := int(binary.BigEndian.Uint16(body))
		switch body = body[2:]; {
		case size > MaxRecord:
			return nil, fmt.Errorf("record of %d bytes: %w", size, ErrLimit)
		case size > len(body):
			return nil, fmt.Errorf("delta: record longer than the rest: %w", ErrMalformed)
		}
		out = append(out, Signed(body[:size:size]))
		body = body[size:]
	}
	return out, nil
}
