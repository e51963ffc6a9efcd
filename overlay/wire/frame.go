package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// frameBuffer is how much a FrameReader reads at once: one read of a busy
// stream brings many packets.
const frameBuffer = 128 << 10

// AppendFrame appends packet as one frame to dst: its length, a note about it that is
// the caller's, both of 2 bytes, big endian, and itself. A packet of 0 or more than
// MaxPacket bytes has no frame: dst comes back as it was.
func AppendFrame(dst, packet []byte, note uint16) []byte {
	if len(packet) == 0 || len(packet) > MaxPacket {
		return dst
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(packet)))
	dst = binary.BigEndian.AppendUint16(dst, note)
	return append(dst, packet...)
}

// FrameReader takes the packets out of a stream of frames. It allocates once,
// and is not safe for concurrent use.
type FrameReader struct {
	r          io.Reader
	buf        []byte
	start, end int // buf[start:end] is read and not yet returned
	note       uint16
	limit      int
	err        error // from r; reported after the frames before it
}

// NewFrameReader reads frames from r whose packets have at most limit bytes; a
// limit outside of 1..MaxPacket means MaxPacket.
func NewFrameReader(r io.Reader, limit int) *FrameReader {
	if limit < 1 || limit > MaxPacket {
		limit = MaxPacket
	}
	return &FrameReader{r: r, buf: make([]byte, max(frameBuffer, FrameHeader+limit)), limit: limit}
}

// Next returns the next packet, which is good until Next has to read again: as
// long as Buffered was true before each call, earlier packets stay. At the end
// of the stream it returns io.EOF, in the middle of a frame
// io.ErrUnexpectedEOF; a frame that is empty or too long is ErrMalformed or
// ErrLimit. After an error the stream is of no use any more.
func (f *FrameReader) Next() ([]byte, error) {
	for {
		packet, err := f.pending()
		if packet != nil || err != nil {
			return packet, err
		}
		if f.err != nil {
			return nil, f.final()
		}
		f.fill()
	}
}

// Note is what came with the packet that Next returned last.
func (f *FrameReader) Note() uint16 { return f.note }

// Buffered reports whether Next would return without reading from the stream.
func (f *FrameReader) Buffered() bool {
	packet, err := f.peek()
	return packet != nil || err != nil
}

func (f *FrameReader) pending() ([]byte, error) {
	packet, err := f.peek()
	if err != nil {
		f.err = err
		return nil, err
	}
	if packet != nil {
		f.note = binary.BigEndian.Uint16(f.buf[f.start+2:])
		f.start += FrameHeader + len(packet)
	}
	return packet, nil
}

// peek returns the first packet if it is complete.
func (f *FrameReader) peek() ([]byte, error) {
	have := f.buf[f.start:f.end]
	if len(have) < FrameHeader {
		return nil, nil
	}
	n := int(binary.BigEndian.Uint16(have))
	switch {
	case n == 0:
		return nil, errEmptyFrame
	case n > f.limit:
		return nil, errLongFrame
	case len(have) < FrameHeader+n:
		return nil, nil
	}
	return have[FrameHeader : FrameHeader+n : FrameHeader+n], nil
}

// Made once: a hostile stream costs no allocation.
var (
	errEmptyFrame = fmt.Errorf("read frame: no packet: %w", ErrMalformed)
	errLongFrame  = fmt.Errorf("read frame: packet too long: %w", ErrLimit)
)

// fill reads once, after it moved what is left of a frame to the front.
func (f *FrameReader) fill() {
	if f.start > 0 {
		f.end = copy(f.buf, f.buf[f.start:f.end])
		f.start = 0
	}
	const maxEmpty = 100 // as bufio: a reader that keeps returning nothing is broken
	for range maxEmpty {
		n, err := f.r.Read(f.buf[f.end:])
		f.end += n
		if err != nil {
			f.err = err
		}
		if n > 0 || err != nil {
			return
		}
	}
	f.err = io.ErrNoProgress
}

func (f *FrameReader) final() error {
	if f.err == io.EOF && f.end > f.start {
		return io.ErrUnexpectedEOF
	}
	return f.err
}
