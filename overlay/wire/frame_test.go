package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func frames(sizes ...int) (stream []byte, packets [][]byte) {
	for i, n := range sizes {
		p := bytes.Repeat([]byte{byte(i + 1)}, n)
		packets = append(packets, p)
		stream = AppendFrame(stream, p, uint16(i))
	}
	return stream, packets
}

func TestFrames(t *testing.T) {
	sizes := []int{1, 20, 1420, 9000, 65535, 1, 65535, 65534, 40}
	stream, want := frames(sizes...)
	for name, r := range map[string]io.Reader{
		"whole":         bytes.NewReader(stream),
		"byte by byte":  iotest.OneByteReader(bytes.NewReader(stream)),
		"halves":        iotest.HalfReader(bytes.NewReader(stream)),
		"data with EOF": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		f := NewFrameReader(r, 0)
		for i, w := range want {
			p, err := f.Next()
			if err != nil || !bytes.Equal(p, w) {
				t.Fatalf("%s: packet %d: %d bytes, %v", name, i, len(p), err)
			}
			if f.Note() != uint16(i) {
				t.Errorf("%s: packet %d has note %d", name, i, f.Note())
			}
		}
		for range 2 {
			if p, err := f.Next(); err != io.EOF || p != nil {
				t.Fatalf("%s: at the end: %d bytes, %v", name, len(p), err)
			}
		}
	}
}

// As long as Buffered says so, packets stay where they are: a batch can be
// handed on without copying.
func TestFrameBatch(t *testing.T) {
	stream, want := frames(100, 200, 300)
	f := NewFrameReader(bytes.NewReader(stream), 1500)
	if f.Buffered() {
		t.Error("has a packet before it read")
	}
	var got [][]byte
	for {
		p, err := f.Next()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p)
		if !f.Buffered() {
			break
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d packets in one read, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("packet %d changed", i)
		}
		if cap(got[i]) != len(got[i]) {
			t.Errorf("append to packet %d would write into the next", i)
		}
	}
}

func TestFrameErrors(t *testing.T) {
	good, _ := frames(50)
	for _, c := range []struct {
		name   string
		stream []byte
		limit  int
		want   error
	}{
		{"nothing", nil, 0, io.EOF},
		{"half a header", []byte{0}, 0, io.ErrUnexpectedEOF},
		{"header only", []byte{0, 5, 0, 0}, 0, io.ErrUnexpectedEOF},
		{"cut packet", good[:20], 0, io.ErrUnexpectedEOF},
		{"empty packet", []byte{0, 0, 0, 0, 1}, 0, ErrMalformed},
		{"over the limit", good, 49, ErrLimit},
	} {
		f := NewFrameReader(bytes.NewReader(c.stream), c.limit)
		for range 2 { // the error stays
			if p, err := f.Next(); !errors.Is(err, c.want) || p != nil {
				t.Errorf("%s: %d bytes, %v, want %v", c.name, len(p), err, c.want)
			}
		}
	}
	for _, n := range []int{0, MaxPacket + 1} {
		if out := AppendFrame([]byte{1}, make([]byte, n), 0); len(out) != 1 {
			t.Errorf("%d bytes have a frame", n)
		}
	}
	if _, err := NewFrameReader(stuck{}, 0).Next(); err != io.ErrNoProgress {
		t.Errorf("a reader that never reads: %v", err)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

func FuzzFrames(f *testing.F) {
	stream, _ := frames(1, 300, 2)
	f.Add(stream, 1500)
	f.Add(stream[:100], 0)
	f.Add([]byte{0, 0}, 10)
	f.Add([]byte{0xff, 0xff, 1}, 65535)
	f.Fuzz(func(t *testing.T, raw []byte, limit int) {
		r := NewFrameReader(iotest.HalfReader(bytes.NewReader(raw)), limit)
		var back []byte
		for {
			p, err := r.Next()
			if err != nil {
				break
			}
			back = AppendFrame(back, p, r.Note())
		}
		if !bytes.HasPrefix(raw, back) {
			t.Fatal("packets that were not in the stream")
		}
	})
}

// loop repeats a stream without end.
type loop struct {
	stream []byte
	at     int
}

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.stream[l.at:])
	l.at = (l.at + n) % len(l.stream)
	return n, nil
}

func TestFramingDoesNotAllocate(t *testing.T) {
	packet, dst := make([]byte, 1420), make([]byte, 0, 2048)
	if n := testing.AllocsPerRun(1000, func() { dst = AppendFrame(dst[:0], packet, 7) }); n != 0 {
		t.Errorf("AppendFrame: %v allocations", n)
	}
	stream, _ := frames(1420, 60, 1420, 1420)
	f := NewFrameReader(&loop{stream: stream}, 1500)
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := f.Next(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Next: %v allocations", n)
	}
}

func BenchmarkAppendFrame(b *testing.B) {
	packet, dst := make([]byte, 1420), make([]byte, 0, 2048)
	b.SetBytes(1420)
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendFrame(dst[:0], packet, 7)
	}
}

func BenchmarkFrameReader(b *testing.B) {
	stream, _ := frames(1420, 1420, 1420, 1420, 1420, 1420, 1420, 1420)
	f := NewFrameReader(&loop{stream: stream}, 1500)
	b.SetBytes(1420)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Next(); err != nil {
			b.Fatal(err)
		}
	}
}
