package socket

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strconv"
	"unsafe"

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

// inbox is a batch from the kernel.
type inbox struct {
	messages [readBatch]message
	names    [readBatch]unix.RawSockaddrInet6 // also long enough for IPv4
	vectors  [readBatch]unix.Iovec
	buffers  [readBatch][readSize]byte
	oob      [readBatch][oobSize]byte

	data [][]byte // of one message
}

func newInbox() *inbox {
	in := &inbox{data: make([][]byte, 0, maxPackets)}
	for i := range in.messages {
		in.vectors[i].Base = &in.buffers[i][0]
		in.vectors[i].SetLen(readSize)
		h := &in.messages[i].header
		h.Name = (*byte)(unsafe.Pointer(&in.names[i]))
		h.Iov = &in.vectors[i]
		h.SetIovlen(1)
		h.Control = &in.oob[i][0]
	}
	return in
}

// serve reads until the socket is closed or fails.
func (s *Socket) serve() {
	defer func() {
		s.in = nil
		close(s.served)
	}()
	for {
		n, err := s.recv()
		if err == nil && n == 0 {
			err = s.fd.Readable()
		}
		if err != nil {
			s.quic.end(s.explain("read", err))
			return
		}
		for i := range n {
			s.handOn(i)
		}
	}
}

// recv takes a batch; 0 means that there is none yet.
func (s *Socket) recv() (int, error) {
	in := s.in
	for i := range in.messages {
		h := &in.messages[i].header
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(oobSize)
	}
	fd, ok := s.fd.Use()
	if !ok {
		return 0, net.ErrClosed
	}
	defer s.fd.Done()
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&in.messages[0])), readBatch, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR, unix.ECONNREFUSED: // the latter is an ICMP message about some packet that was sent
		default:
			return 0, os.NewSyscallError("recvmmsg", errno)
		}
	}
}

// handOn hands on what is in one message: data to the Receiver, the rest to QUIC.
func (s *Socket) handOn(i int) {
	in := s.in
	m := &in.messages[i]
	packets := in.buffers[i][:m.size]
	oob := in.oob[i][:m.header.Controllen]
	segment, local := s.readControl(oob)
	from := Source{s.number, local, addrPort(&in.names[i])}
	if segment <= 0 {
		segment = len(packets)
	}
	for len(packets) > 0 {
		packet := packets[:min(segment, len(packets))]
		packets = packets[len(packet):]
		if !IsData(packet[0]) {
			s.deliver(from) // what came before it
			s.quic.put(packet, oob, from.Remote)
			continue
		}
		if in.data = append(in.data, packet); len(in.data) == maxPackets {
			s.deliver(from)
		}
	}
	s.deliver(from)
}

func (s *Socket) deliver(from Source) {
	if len(s.in.data) > 0 {
		s.receive(from, s.in.data)
		s.in.data = s.in.data[:0]
	}
}

// readControl reads the kernel's counter of drops, and returns the size of the
// packets that it has put together, 0 for a single one, and the address that they
// were sent to.
func (s *Socket) readControl(oob []byte) (segment int, local netip.Addr) {
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
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(body) >= unix.SizeofInet4Pktinfo:
			local = netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&body[0])).Spec_dst)
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(body) >= unix.SizeofInet6Pktinfo:
			local = netip.AddrFrom16((*unix.Inet6Pktinfo)(unsafe.Pointer(&body[0])).Addr)
		}
		oob = oob[min(len(oob), unix.CmsgSpace(size-unix.SizeofCmsghdr)):]
	}
	return segment, local
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
