package socket

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	readBatch  = 8       // reads of the kernel at once
	readSize   = 1 << 16 // bytes of one, which UDP_GRO may have made of many packets
	oobSize    = 128     // bytes of control messages: five kinds of up to 40
	maxPackets = 128     // data packets that the Receiver gets at once
)

// message is struct mmsghdr of recvmmsg(2).
type message struct {
	header unix.Msghdr
	size   uint32
	_      [4]byte
}

// inbox is a batch from the kernel and how much of it has been handed on.
type inbox struct {
	messages [readBatch]message
	names    [readBatch]unix.RawSockaddrInet6 // also long enough for IPv4
	vectors  [readBatch]unix.Iovec
	buffers  [readBatch][readSize]byte
	oob      [readBatch][oobSize]byte

	n       int // messages of the batch
	current int // the one that is being handed on
	offset  int // in it
	data    [][]byte

	try func(fd uintptr) bool
	err error
}

func (in *inbox) init(try func(uintptr) bool) {
	in.try = try
	in.data = make([][]byte, 0, maxPackets)
	for i := range in.messages {
		in.vectors[i].Base = &in.buffers[i][0]
		in.vectors[i].SetLen(readSize)
		h := &in.messages[i].header
		h.Name = (*byte)(unsafe.Pointer(&in.names[i]))
		h.Iov = &in.vectors[i]
		h.SetIovlen(1)
		h.Control = &in.oob[i][0]
	}
}

// ReadBatch reads packets for QUIC, at least one, and gives data packets that come
// in between to the Receiver. flags is not used.
func (s *Socket) ReadBatch(ms []ipv4.Message, _ int) (int, error) {
	for {
		if n := s.handOn(ms); n > 0 {
			return n, nil
		}
		if err := s.raw.Read(s.in.try); err != nil {
			return 0, err
		}
		if s.in.err != nil {
			return 0, s.in.err
		}
	}
}

// tryReceive takes a batch; false means that there is none yet.
func (s *Socket) tryReceive(fd uintptr) bool {
	in := &s.in
	for i := range in.messages {
		h := &in.messages[i].header
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(oobSize)
	}
	in.n, in.current, in.offset, in.err = 0, 0, 0, nil
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&in.messages[0])), readBatch, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			in.n = int(n)
			return true
		case unix.EAGAIN:
			return false
		case unix.EINTR, unix.ECONNREFUSED: // the latter is an ICMP message about some packet that was sent
		default:
			in.err = errno
			return true
		}
	}
}

// handOn goes through the batch: data to the Receiver, QUIC's packets into ms,
// until that is full or the batch is empty.
func (s *Socket) handOn(ms []ipv4.Message) (n int) {
	in := &s.in
	for ; in.current < in.n; in.current, in.offset = in.current+1, 0 {
		m := &in.messages[in.current]
		packets := in.buffers[in.current][:m.size]
		oob := in.oob[in.current][:m.header.Controllen]
		from := &in.names[in.current]
		segment := s.readControl(oob)
		if segment <= 0 {
			segment = len(packets)
		}
		for in.offset < len(packets) {
			packet := packets[in.offset:min(in.offset+segment, len(packets))]
			if IsData(packet[0]) {
				if in.data = append(in.data, packet); len(in.data) == maxPackets {
					s.deliver(from)
				}
			} else {
				if n == len(ms) {
					s.deliver(from)
					return n
				}
				ms[n].N = copy(ms[n].Buffers[0], packet)
				ms[n].NN = copy(ms[n].OOB, oob)
				ms[n].Addr = net.UDPAddrFromAddrPort(addrPort(from))
				n++
			}
			in.offset += len(packet)
		}
		s.deliver(from)
	}
	return n
}

func (s *Socket) deliver(from *unix.RawSockaddrInet6) {
	if len(s.in.data) > 0 {
		s.receive(addrPort(from), s.in.data)
		s.in.data = s.in.data[:0]
	}
}

// readControl reads the kernel's counter of drops, and returns the size of the
// packets that it has put together, 0 for a single one.
func (s *Socket) readControl(oob []byte) (segment int) {
	for len(oob) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		size := int(h.Len)
		if size < unix.SizeofCmsghdr || size > len(oob) {
			break
		}
		body := oob[unix.SizeofCmsghdr:size]
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(body) >= 4:
			segment = int(binary.NativeEndian.Uint32(body))
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL && len(body) >= 4:
			s.drops.Store(binary.NativeEndian.Uint32(body))
		}
		oob = oob[min(len(oob), unix.CmsgSpace(size-unix.SizeofCmsghdr)):]
	}
	return segment
}

// addrPort reads what recvmmsg wrote.
func addrPort(name *unix.RawSockaddrInet6) netip.AddrPort {
	if name.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), networkOrder(v4.Port))
	}
	addr := netip.AddrFrom16(name.Addr)
	if name.Scope_id != 0 && addr.IsLinkLocalUnicast() {
		addr = addr.WithZone(strconv.FormatUint(uint64(name.Scope_id), 10))
	}
	return netip.AddrPortFrom(addr, networkOrder(name.Port))
}

// networkOrder turns a port as the kernel keeps it into a number and back.
func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}
