package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kairos-io/kairos/overlay/internal/poll"
)

// Limits of one system call with UDP_SEGMENT: udp(7) and the size of an IP packet.
const (
	maxSegments = 64
	maxBytes    = 65000
)

// Room for the control messages of one call: the source address, at most
// CMSG_SPACE(sizeof(struct in6_pktinfo)), and then CMSG_SPACE(2) for UDP_SEGMENT.
const controlSize = 40 + 24

// Sender sends from one address to another. It is for one goroutine at a time.
type Sender struct {
	socket  *Socket
	name    unix.RawSockaddrInet6 // or RawSockaddrInet4, which is shorter
	header  unix.Msghdr
	vectors [maxSegments]unix.Iovec
	control [controlSize]byte
	source  int // bytes of control that say where packets come from
	try     func(fd uintptr) bool
	waits   bool // for room in the socket's buffer
	err     error
}

// NewSender makes a sender to remote, an address of the socket's family, from local,
// an address of this machine; where that is not valid the kernel chooses.
func (s *Socket) NewSender(local netip.Addr, remote netip.AddrPort) (*Sender, error) {
	w := &Sender{socket: s}
	local = local.Unmap()
	if remote.Addr().Unmap().Is4() != s.Is4() || local.IsValid() && local.Is4() != s.Is4() {
		return nil, fmt.Errorf("send to %v from %v on %v: not the same address family", remote, local, s.local)
	}
	if err := w.setName(remote); err != nil {
		return nil, fmt.Errorf("send to %v: %w", remote, err)
	}
	w.setSource(local)
	w.header.Name = (*byte)(unsafe.Pointer(&w.name))
	w.header.Iov = &w.vectors[0]
	h := (*unix.Cmsghdr)(unsafe.Pointer(&w.control[w.source]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	w.try = w.trySend
	return w, nil
}

func (w *Sender) setName(to netip.AddrPort) error {
	if w.socket.Is4() {
		name := (*unix.RawSockaddrInet4)(unsafe.Pointer(&w.name))
		name.Family, name.Port, name.Addr = unix.AF_INET, networkOrder(to.Port()), to.Addr().Unmap().As4()
		w.header.Namelen = unix.SizeofSockaddrInet4
		return nil
	}
	w.name.Family, w.name.Port, w.name.Addr = unix.AF_INET6, networkOrder(to.Port()), to.Addr().As16()
	w.header.Namelen = unix.SizeofSockaddrInet6
	var err error
	w.name.Scope_id, err = zoneIndex(to.Addr().Zone())
	return err
}

// setSource has packets leave from local (ip(7) and ipv6(7), IP_PKTINFO). Which card
// they leave by is for the routing table to say.
func (w *Sender) setSource(local netip.Addr) {
	if !local.IsValid() {
		return
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&w.control[0]))
	body := unsafe.Pointer(&w.control[unix.CmsgLen(0)])
	size := unix.SizeofInet4Pktinfo
	if local.Is4() {
		h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
		(*unix.Inet4Pktinfo)(body).Spec_dst = local.As4()
	} else {
		size = unix.SizeofInet6Pktinfo
		h.Level, h.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
		(*unix.Inet6Pktinfo)(body).Addr = local.As16()
	}
	h.SetLen(unix.CmsgLen(size))
	w.source = unix.CmsgSpace(size)
}

// zoneIndex is the number of a zone (RFC 4007), which may be one already.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	card, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(card.Index), nil
}

// Send sends packets, none of them empty, and returns how many the kernel took. It
// waits where the socket's buffer is full. Packets of one size in a row, the last of
// them may be shorter, cost one system call for up to 64 of them. An error is about
// the packet after those that were taken; unix.EMSGSIZE says that it is larger than
// the path lets through.
func (w *Sender) Send(packets [][]byte) (sent int, err error) {
	w.waits = true
	for sent < len(packets) {
		n := w.run(packets[sent:])
		err := w.send(packets[sent : sent+n])
		if err != nil && n > 1 && refusesSegments(err) {
			// The card, or something on the way to it: EIO; the kernel: EINVAL. A run
			// that is too large for the path may pass one by one. What does not pass
			// one by one either has another cause: a source address that is gone, say.
			for i := range n {
				if err := w.send(packets[sent+i : sent+i+1]); err != nil {
					return sent + i, err
				}
			}
			if !errors.Is(err, unix.EMSGSIZE) {
				w.socket.unsegmented.Store(true)
			}
			err = nil
		}
		if err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// Offer sends one packet if there is room for it at once, and fails with unix.EAGAIN
// where there is not.
func (w *Sender) Offer(packet []byte) error {
	w.waits = false
	return w.send([][]byte{packet})
}

func refusesSegments(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE)
}

// run is how many of the packets go with one system call.
func (w *Sender) run(packets [][]byte) int {
	if w.socket.unsegmented.Load() {
		return 1
	}
	size, total, n := len(packets[0]), 0, 0
	for _, p := range packets {
		if len(p) > size || n == maxSegments || total+len(p) > maxBytes {
			break
		}
		total += len(p)
		n++
		if len(p) < size {
			break
		}
	}
	return max(n, 1)
}

// send sends one run.
func (w *Sender) send(packets [][]byte) error {
	n := poll.Vectors(w.vectors[:], packets)
	w.header.SetIovlen(n)
	control := w.source
	if len(packets) > 1 {
		binary.NativeEndian.PutUint16(w.control[control+unix.CmsgLen(0):], uint16(len(packets[0])))
		control += unix.CmsgSpace(2)
	}
	w.header.Control = nil
	if control > 0 {
		w.header.Control = &w.control[0]
	}
	w.header.SetControllen(control)
	err := w.socket.fd.Write(w.try)
	runtime.KeepAlive(packets)
	clear(w.vectors[:n]) // what was sent is not kept alive
	if err != nil {
		return err
	}
	return w.err
}

// trySend sends; false means that there is no room yet.
func (w *Sender) trySend(fd uintptr) bool {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&w.header)), unix.MSG_DONTWAIT)
		switch errno {
		case 0:
			w.err = nil
			return true
		case unix.EAGAIN:
			w.err = errno
			return !w.waits
		case unix.EINTR, unix.ECONNREFUSED: // the latter is about an earlier packet
		default:
			w.err = errno
			return true
		}
	}
}
