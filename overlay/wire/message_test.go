package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/kairos-io/kairos/overlay/identity"
)

func encode(t testing.TB, m Message) []byte {
	t.Helper()
	raw, err := AppendMessage(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// bigDigest has n entries, and all of the range of IDs.
func bigDigest(n int) Digest {
	d := Digest{Entries: make([]Entry, 0, n)}
	for i := range n {
		d.Entries = append(d.Entries, Entry{ID: numbered(i + 1), Seq: uint64(i), Check: uint32(i)})
	}
	return d
}

func bigWant(n int) Want {
	w := make(Want, 0, n)
	for i := range n {
		w = append(w, numbered(i+1))
	}
	return w
}

func numbered(i int) (id identity.ID) {
	binary.BigEndian.PutUint32(id[:], uint32(i))
	return id
}

// unknown is a message of a kind that a later version may know.
func unknown(size int) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{200, messageVersion}, uint32(size)), make([]byte, size)...)
}

func TestMessageRoundTrip(t *testing.T) {
	part := bigDigest(3)
	part.After, part.Last = identity.ID{0, 0, 0, 0, 9}, identity.ID{0, 0, 0, 4}
	for name, m := range map[string]Message{
		"summary":      Summary{Hash: [32]byte{1, 31: 2}, Count: 7},
		"empty digest": Digest{Entries: []Entry{}},
		"digest":       part,
		"full digest":  bigDigest(MaxDigest),
		"empty delta":  Delta{},
		"delta":        Delta{Signed("one"), Signed("two"), bytes.Repeat([]byte{3}, MaxRecord/2)},
		"empty want":   Want{},
		"want":         bigWant(MaxDigest),
	} {
		var stream bytes.Buffer
		for range 2 {
			stream.Write(encode(t, m))
		}
		r := NewMessageReader(iotest.OneByteReader(&stream), nil)
		for range 2 {
			got, err := r.Next()
			if err != nil || !reflect.DeepEqual(got, m) {
				t.Fatalf("%s: came back as another message, %v", name, err)
			}
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%s: at the end: %v", name, err)
		}
	}
}

// What a later version says besides is passed over, and paid for like the rest.
func TestUnknownMessagesAreSkipped(t *testing.T) {
	var stream bytes.Buffer
	stream.Write(unknown(0))
	stream.Write(unknown(MaxMessage))
	later := encode(t, Summary{Count: 1})
	later = append(later, "and more"...)
	binary.BigEndian.PutUint32(later[2:], summarySize+8)
	stream.Write(later)
	stream.Write(unknown(5))
	stream.Write(encode(t, Want{numbered(1)}))
	size, paid := stream.Len(), 0
	r := NewMessageReader(&stream, func(n int) error { paid += n; return nil })
	if m, err := r.Next(); err != nil || m != (Message)(Summary{Count: 1}) {
		t.Errorf("%v, %v instead of the summary", m, err)
	}
	if m, err := r.Next(); err != nil || !reflect.DeepEqual(m, Want{numbered(1)}) {
		t.Errorf("%v, %v instead of the want", m, err)
	}
	if r.Skipped() != 3 || paid != size {
		t.Errorf("skipped %d, paid %d bytes of %d", r.Skipped(), paid, size)
	}
}

// Nothing of a body is read before it is paid for.
func TestPaceComesFirst(t *testing.T) {
	stream := bytes.NewReader(append(encode(t, Want{numbered(1)}), "rest"...))
	broke := errors.New("no money")
	_, err := NewMessageReader(stream, func(int) error { return broke }).Next()
	if !errors.Is(err, broke) || stream.Len() != idSize+4 {
		t.Errorf("%v, and %d bytes left", err, stream.Len())
	}
}

func TestMessageRefused(t *testing.T) {
	digest := encode(t, bigDigest(2))
	swapped := bytes.Clone(digest)
	first := messageHeader + 2*idSize
	copy(swapped[first:], digest[first+entrySize:])
	copy(swapped[first+entrySize:], digest[first:first+entrySize])
	outside := bigDigest(2)
	outside.Last = numbered(1)
	before := bigDigest(2)
	before.After = numbered(1)
	message := func(kind, version byte, size uint32, body ...byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{kind, version}, size), body...)
	}
	zero := make([]byte, MaxMessage)
	for _, c := range []struct {
		name string
		raw  []byte
		want error
	}{
		{"nothing", nil, io.EOF},
		{"half a header", digest[:3], io.ErrUnexpectedEOF},
		{"cut", digest[:20], io.ErrUnexpectedEOF},
		{"header only", message(kindDigest, messageVersion, 40), io.ErrUnexpectedEOF},
		{"unknown kind, cut", unknown(9)[:8], io.ErrUnexpectedEOF},
		{"unknown kind that announces too much", message(200, messageVersion, MaxMessage+1), ErrLimit},
		{"unknown version", message(kindDigest, 9, 0), ErrVersion},
		{"unknown version of an unknown kind", message(200, 9, 0), ErrVersion},
		{"announces too much", message(kindDelta, messageVersion, MaxMessage+1), ErrLimit},
		{"short summary", message(kindSummary, messageVersion, 3, 1, 2, 3), ErrMalformed},
		{"digest without a range", message(kindDigest, messageVersion, 3, 1, 2, 3), ErrMalformed},
		{"digest not of entries", message(kindDigest, messageVersion, uint32(2*idSize+1), zero[:2*idSize+1]...), ErrMalformed},
		{"digest out of order", swapped, ErrMalformed},
		{"digest beyond its range", encode(t, outside), ErrMalformed},
		{"digest before its range", encode(t, before), ErrMalformed},
		{"digest of the zero id", message(kindDigest, messageVersion, uint32(2*idSize+entrySize), zero[:2*idSize+entrySize]...), ErrMalformed},
		{"want not of ids", message(kindWant, messageVersion, 3, 1, 2, 3), ErrMalformed},
		{"want of the zero id", message(kindWant, messageVersion, uint32(idSize), zero[:idSize]...), ErrMalformed},
		{"too large a want", message(kindWant, messageVersion, uint32((MaxDigest+1)*idSize), zero[:(MaxDigest+1)*idSize]...), ErrLimit},
		{"record longer than the rest", message(kindDelta, messageVersion, 3, 0, 9, 1), ErrMalformed},
		{"half a length", message(kindDelta, messageVersion, 1, 0), ErrMalformed},
		{"record over its limit", message(kindDelta, messageVersion, 3, 0xff, 0xff, 1), ErrLimit},
		{"too many records", message(kindDelta, messageVersion, 2*MaxDelta+2, zero[:2*MaxDelta+2]...), ErrLimit},
		{"too large a digest", message(kindDigest, messageVersion, uint32(2*idSize+(MaxDigest+1)*entrySize),
			zero[:2*idSize+(MaxDigest+1)*entrySize]...), ErrLimit},
	} {
		m, err := NewMessageReader(bytes.NewReader(c.raw), nil).Next()
		if !errors.Is(err, c.want) || m != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for name, m := range map[string]Message{
		"large digest": bigDigest(MaxDigest + 1),
		"large want":   bigWant(MaxDigest + 1),
		"many records": make(Delta, MaxDelta+1),
		"large record": Delta{make(Signed, MaxRecord+1)},
		"large delta":  Delta(slicesOf(MaxMessage/MaxRecord, MaxRecord)),
	} {
		if out, err := AppendMessage([]byte{1}, m); err == nil || len(out) != 1 {
			t.Errorf("%s: encoded, %v", name, err)
		}
	}
}

func slicesOf(n, size int) []Signed {
	out := make([]Signed, n)
	for i := range out {
		out[i] = make(Signed, size)
	}
	return out
}

// Announcing much and sending little costs the receiver little.
func TestMessageMemory(t *testing.T) {
	raw := binary.BigEndian.AppendUint32([]byte{kindDelta, messageVersion}, MaxMessage)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const n = 200
	for range n {
		if _, err := NewMessageReader(bytes.NewReader(raw), nil).Next(); err == nil {
			t.Fatal("read a message that is not there")
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / n; each > 64<<10 {
		t.Errorf("%d bytes for each announcement", each)
	}
}

func TestDeltas(t *testing.T) {
	for name, records := range map[string][]Signed{
		"none":    nil,
		"few":     slicesOf(3, 300),
		"many":    slicesOf(MaxMembers, 300),
		"largest": slicesOf(200, MaxRecord),
		"tiny":    slicesOf(2*MaxDelta+1, 1),
	} {
		total := 0
		for _, d := range Deltas(records) {
			total += len(d)
			if len(d) == 0 {
				t.Errorf("%s: an empty delta", name)
			}
			encode(t, d)
		}
		if total != len(records) {
			t.Errorf("%s: %d of %d records", name, total, len(records))
		}
	}
	if got := Deltas(slicesOf(2, MaxRecord+1)); len(got) != 0 {
		t.Error("passes on records that nobody takes")
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add(encode(f, bigDigest(3)))
	f.Add(encode(f, Delta{Signed("one"), Signed("two")}))
	f.Add(encode(f, Want{numbered(3)}))
	f.Add(append(unknown(3), encode(f, Summary{Count: 9})...))
	f.Add([]byte{kindDelta, messageVersion, 0, 0, 0, 2, 0, 9})
	f.Add([]byte{kindDigest, messageVersion, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		stream := bytes.NewReader(raw)
		r := NewMessageReader(stream, nil)
		m, err := r.Next()
		if err != nil {
			return
		}
		if _, open := m.(Summary); open || r.Skipped() > 0 {
			return // bytes that nobody knows
		}
		if again := encode(t, m); !bytes.Equal(again, raw[:len(raw)-stream.Len()]) {
			t.Fatal("two encodings of one message")
		}
	})
}
