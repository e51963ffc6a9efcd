package offload

import "encoding/binary"

// HeaderSize is the size in bytes of the header before each packet of the device.
const HeaderSize = 10

// BufferSize is the room in bytes for a header and the largest packet.
const BufferSize = HeaderSize + 1<<16

// Header is struct virtio_net_hdr (virtio 1.2, section 5.1.6), in the order of bytes
// of the machine.
type Header struct {
	Flags          uint8
	Type           uint8  // of segmentation
	Length         uint16 // of the packet's headers, in bytes
	SegmentSize    uint16 // bytes of payload
	ChecksumStart  uint16 // what the checksum is over begins here
	ChecksumOffset uint16 // and from there, here is where it goes
}

// Values of Flags and Type.
const (
	needsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM

	typeNone  = 0
	typeTCP4  = 1
	typeTCP6  = 4
	typeUDP   = 5    // VIRTIO_NET_HDR_GSO_UDP_L4
	typeECN   = 0x80 // on top of TCP: the first segment alone has CWR
	typesMask = 0x7f
)

// DecodeHeader reads the first HeaderSize bytes of b.
func DecodeHeader(b []byte) Header {
	_ = b[HeaderSize-1]
	return Header{
		Flags: b[0], Type: b[1],
		Length:         binary.NativeEndian.Uint16(b[2:]),
		SegmentSize:    binary.NativeEndian.Uint16(b[4:]),
		ChecksumStart:  binary.NativeEndian.Uint16(b[6:]),
		ChecksumOffset: binary.NativeEndian.Uint16(b[8:]),
	}
}

// Encode writes the header to the first HeaderSize bytes of b.
func (h Header) Encode(b []byte) {
	_ = b[HeaderSize-1]
	b[0], b[1] = h.Flags, h.Type
	binary.NativeEndian.PutUint16(b[2:], h.Length)
	binary.NativeEndian.PutUint16(b[4:], h.SegmentSize)
	binary.NativeEndian.PutUint16(b[6:], h.ChecksumStart)
	binary.NativeEndian.PutUint16(b[8:], h.ChecksumOffset)
}

// Segments is how many packets on a wire one of so many bytes stands for.
func (h Header) Segments(bytes int) int {
	if h.SegmentSize == 0 {
		return 1
	}
	return (bytes - int(h.Length) + int(h.SegmentSize) - 1) / int(h.SegmentSize)
}

// IsUDP reports whether the packet is a datagram without its checksum, or a run of them.
func (h Header) IsUDP() bool { return h.Flags&needsChecksum != 0 && h.ChecksumOffset == udpSum }

// IsRun reports whether the packet is a run of datagrams, which Linux takes since 6.2.
func (h Header) IsRun() bool { return h.Type == typeUDP }
