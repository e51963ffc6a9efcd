package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Kinds of messages.
const (
	kindDigest = 1
	kindDelta  = 2
)

const (
	messageHeader = 6
	digestEntry   = len(identity.ID{}) + 8
)

// Digest says which sequence number of each member's record somebody knows.
type Digest map[identity.ID]uint64

// Delta carries records, each at most MaxRecord, at most MaxDelta in a message.
type Delta []Signed

// Message is one gossip message: a Digest or a Delta, never both.
type Message struct {
	Digest Digest // not nil in a digest message, even when empty
	Delta  Delta
}

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
		if len(now) == MaxDelta || size+2+len(r) > MaxMessage {
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

// AppendMessage appends the encoding of m to dst. Messages over the limits are
// ErrLimit.
func AppendMessage(dst []byte, m Message) ([]byte, error) {
	kind, body, err := byte(kindDelta), []byte(nil), error(nil)
	if m.Digest != nil {
		if len(m.Delta) != 0 {
			return dst, fmt.Errorf("encode message: digest and delta in one: %w", ErrMalformed)
		}
		kind = kindDigest
		body, err = appendDigest(nil, m.Digest)
	} else {
		body, err = appendDelta(nil, m.Delta)
	}
	if err != nil {
		return dst, fmt.Errorf("encode message: %w", err)
	}
	dst = append(dst, kind, messageVersion)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)))
	return append(dst, body...), nil
}

// WriteMessage writes m to w in one Write.
func WriteMessage(w io.Writer, m Message) error {
	raw, err := AppendMessage(nil, m)
	if err != nil {
		return err
	}
	if _, err := w.Write(raw); err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	return nil
}

// ReadMessage reads one message from r, and not one byte more. It returns io.EOF
// if r ends before the message begins. Memory grows with what arrives, not with
// what is announced.
func ReadMessage(r io.Reader) (Message, error) {
	var header [messageHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		if err == io.EOF {
			return Message{}, io.EOF
		}
		return Message{}, fmt.Errorf("read message: %w", err)
	}
	size := binary.BigEndian.Uint32(header[2:])
	switch {
	case header[1] != messageVersion:
		return Message{}, fmt.Errorf("read message: version %d: %w", header[1], ErrVersion)
	case size > MaxMessage:
		return Message{}, fmt.Errorf("read message: %d bytes: %w", size, ErrLimit)
	}
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, int64(size)); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Message{}, fmt.Errorf("read message: %w", err)
	}
	return decodeMessage(header[0], body.Bytes())
}

func decodeMessage(kind byte, body []byte) (m Message, err error) {
	switch kind {
	case kindDigest:
		m.Digest, err = readDigest(body)
	case kindDelta:
		m.Delta, err = readDelta(body)
	default:
		err = fmt.Errorf("kind %d: %w", kind, ErrMalformed)
	}
	if err != nil {
		return Message{}, fmt.Errorf("read message: %w", err)
	}
	return m, nil
}

func appendDigest(out []byte, d Digest) ([]byte, error) {
	if len(d) > MaxDigest {
		return nil, fmt.Errorf("digest of %d members: %w", len(d), ErrLimit)
	}
	for _, id := range slices.SortedFunc(maps.Keys(d), identity.ID.Compare) {
		out = append(out, id[:]...)
		out = binary.BigEndian.AppendUint64(out, d[id])
	}
	return out, nil
}

func readDigest(body []byte) (Digest, error) {
	if len(body) > MaxDigest*digestEntry {
		return nil, fmt.Errorf("digest of %d bytes: %w", len(body), ErrLimit)
	}
	if len(body)%digestEntry != 0 {
		return nil, fmt.Errorf("digest of %d bytes: %w", len(body), ErrMalformed)
	}
	out := make(Digest, len(body)/digestEntry)
	var last identity.ID
	for entry := range slices.Chunk(body, digestEntry) {
		id := identity.ID(entry[:len(identity.ID{})])
		if id.Compare(last) <= 0 { // also refuses the zero ID
			return nil, fmt.Errorf("digest out of order: %w", ErrMalformed)
		}
		out[id] = binary.BigEndian.Uint64(entry[len(id):])
		last = id
	}
	return out, nil
}

func appendDelta(out []byte, d Delta) ([]byte, error) {
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
	if len(out) > MaxMessage {
		return nil, fmt.Errorf("delta of %d bytes: %w", len(out), ErrLimit)
	}
	return out, nil
}

// readDelta returns records that share memory with body and are not yet
// opened.
func readDelta(body []byte) (Delta, error) {
	d := decoder{rest: body}
	var out Delta
	for len(d.rest) > 0 {
		if len(out) == MaxDelta {
			return nil, fmt.Errorf("delta of more than %d records: %w", MaxDelta, ErrLimit)
		}
		size := d.bounded(d.uint16(), MaxRecord)
		if record := d.take(size); d.err == nil {
			out = append(out, Signed(record))
		}
	}
	return out, d.err
}
