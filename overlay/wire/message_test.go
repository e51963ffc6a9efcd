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

func bigDigest(n int) Digest {
	d := make(Digest, n)
	for i := range n {
		var id identity.ID
		binary.BigEndian.PutUint32(id[:], uint32(i+1))
		d[id] = uint64(i)
	}
	return d
}

func TestMessageRoundTrip(t *testing.T) {
	for name, m := range map[string]Message{
		"empty digest": {Digest: Digest{}},
		"digest":       {Digest: bigDigest(3)},
		"full digest":  {Digest: bigDigest(MaxDigest)},
		"empty delta":  {},
		"delta":        {Delta: Delta{Signed("one"), Signed("two"), bytes.Repeat([]byte{3}, MaxRecord)}},
	} {
		var stream bytes.Buffer
		for range 2 {
			if err := WriteMessage(&stream, m); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		r := iotest.OneByteReader(&stream)
		for range 2 {
			got, err := ReadMessage(r)
			if err != nil || !reflect.DeepEqual(got, m) {
				t.Fatalf("%s: came back as another message, %v", name, err)
			}
		}
		if _, err := ReadMessage(r); err != io.EOF {
			t.Errorf("%s: at the end: %v", name, err)
		}
	}
}

func TestMessageRefused(t *testing.T) {
	digest := encode(t, Message{Digest: bigDigest(2)})
	swapped := bytes.Clone(digest)
	copy(swapped[messageHeader:], digest[messageHeader+digestEntry:])
	copy(swapped[messageHeader+digestEntry:], digest[messageHeader:])
	message := func(kind, version byte, size uint32, body ...byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{kind, version}, size), body...)
	}
	for _, c := range []struct {
		name string
		raw  []byte
		want error
	}{
		{"nothing", nil, io.EOF},
		{"half a header", digest[:3], io.ErrUnexpectedEOF},
		{"cut", digest[:20], io.ErrUnexpectedEOF},
		{"header only", message(kindDigest, messageVersion, 40), io.ErrUnexpectedEOF},
		{"unknown kind", message(3, messageVersion, 0), ErrMalformed},
		{"unknown version", message(kindDigest, 9, 0), ErrVersion},
		{"announces too much", message(kindDelta, messageVersion, MaxMessage+1), ErrLimit},
		{"digest not of entries", message(kindDigest, messageVersion, 3, 1, 2, 3), ErrMalformed},
		{"digest out of order", swapped, ErrMalformed},
		{"digest of the zero id", message(kindDigest, messageVersion, uint32(digestEntry), make([]byte, digestEntry)...), ErrMalformed},
		{"record longer than the rest", message(kindDelta, messageVersion, 3, 0, 9, 1), ErrMalformed},
		{"half a length", message(kindDelta, messageVersion, 1, 0), ErrMalformed},
		{"record over its limit", message(kindDelta, messageVersion, 3, 0xff, 0xff, 1), ErrLimit},
		{"too many records", message(kindDelta, messageVersion, 2*MaxDelta+2, make([]byte, 2*MaxDelta+2)...), ErrLimit},
		{"too large a digest", message(kindDigest, messageVersion, uint32((MaxDigest+1)*digestEntry),
			make([]byte, (MaxDigest+1)*digestEntry)...), ErrLimit},
	} {
		m, err := ReadMessage(bytes.NewReader(c.raw))
		if !errors.Is(err, c.want) || m.Digest != nil || m.Delta != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for name, m := range map[string]Message{
		"digest and delta": {Digest: Digest{}, Delta: Delta{Signed("x")}},
		"large digest":     {Digest: bigDigest(MaxDigest + 1)},
		"many records":     {Delta: make(Delta, MaxDelta+1)},
		"large record":     {Delta: Delta{make(Signed, MaxRecord+1)}},
		"large delta":      {Delta: slicesOf(MaxMessage/MaxRecord, MaxRecord)},
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
		if _, err := ReadMessage(bytes.NewReader(raw)); err == nil {
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
			encode(t, Message{Delta: d})
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
	f.Add(encode(f, Message{Digest: bigDigest(3)}))
	f.Add(encode(f, Message{Delta: Delta{Signed("one"), Signed("two")}}))
	f.Add([]byte{kindDelta, messageVersion, 0, 0, 0, 2, 0, 9})
	f.Add([]byte{kindDigest, messageVersion, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := bytes.NewReader(raw)
		m, err := ReadMessage(r)
		if err != nil {
			return
		}
		if again := encode(t, m); !bytes.Equal(again, raw[:len(raw)-r.Len()]) {
			t.Fatal("two encodings of one message")
		}
	})
}
