package tun

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kairos-io/kairos/overlay/internal/poll"
	"github.com/kairos-io/kairos/overlay/offload"
)

// Offloads of TUNSETOFFLOAD that golang.org/x/sys/unix has no names for.
const (
	tunFUSO4 = 0x20 // since Linux 6.2
	tunFUSO6 = 0x40

	tcpOffloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	udpOffloads = tunFUSO4 | tunFUSO6
)

// device is a queue of the interface.
type device struct {
	fd  *poll.Descriptor
	udp bool
}

// open opens a queue on the interface, which becomes what cfg says.
func (d *device) open(cfg Config) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := attach(fd, cfg.Name); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	if d.fd, err = poll.New(fd); err != nil {
		return err
	}
	persist := 0
	if cfg.Persist {
		persist = 1
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, persist); err != nil {
		return fmt.Errorf("set persistence: %w", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, offload.HeaderSize); err != nil {
		return fmt.Errorf("set size of header: %w", err)
	}
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcpOffloads|udpOffloads) == nil {
		d.udp = true
		return nil
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcpOffloads); err != nil {
		return fmt.Errorf("set offloads: %w", err)
	}
	return nil
}

// attach makes fd a queue of the interface. Nobody can wait for what is none yet.
func attach(fd int, name string) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
}

func (d *device) close() error {
	if d.fd == nil {
		return nil
	}
	return d.fd.Close()
}

// Wait implements Device.
func (d *device) Wait(busy bool) error {
	if busy {
		poll.Nap()
		return nil // Read says if it is closed
	}
	if err := d.fd.Readable(); err != nil { // also where the interface was deleted: Read says so
		return d.explain("wait for", err)
	}
	return nil
}

// Read implements Device. It enters the kernel without telling the scheduler, which
// costs as much as a small packet does: the call never sleeps.
func (d *device) Read(buf []byte) (offload.Packet, error) {
	fd, ok := d.fd.Use()
	if !ok {
		return offload.Packet{}, d.explain("read", os.ErrClosed)
	}
	defer d.fd.Done()
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)))
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return offload.Packet{}, nil
		case errno != 0:
			return offload.Packet{}, d.explain("read", errno)
		case int(n) <= offload.HeaderSize:
			return offload.Packet{}, d.explain("read", io.ErrUnexpectedEOF)
		default:
			return offload.Take(offload.DecodeHeader(buf), buf[offload.HeaderSize:n])
		}
	}
}

// vectors are what one Write hands to the kernel.
type vectors struct {
	header [offload.HeaderSize]byte
	parts  [maxParts + 1]unix.Iovec
}

// maxParts is how many parts a packet may have.
const maxParts = 128

var vectorPool = sync.Pool{New: func() any { return new(vectors) }}

// Write implements Device.
func (d *device) Write(h offload.Header, parts [][]byte) error {
	if h.IsRun() && !d.udp {
		return d.writeApart(h, parts)
	}
	if len(parts) > maxParts {
		return d.explain("write", unix.EMSGSIZE)
	}
	fd, ok := d.fd.Use()
	if !ok {
		return d.explain("write", os.ErrClosed)
	}
	defer d.fd.Done()
	v := vectorPool.Get().(*vectors)
	defer vectorPool.Put(v)
	h.Encode(v.header[:])
	v.parts[0].Base = &v.header[0]
	v.parts[0].SetLen(len(v.header))
	n := 1 + poll.Vectors(v.parts[1:], parts)
	defer clear(v.parts[:n]) // what was written is not kept alive
	defer runtime.KeepAlive(parts)
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&v.parts[0])), uintptr(n))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return d.explain("write", errno)
		}
	}
}

// writeApart writes a run of datagrams one by one, for a kernel that takes no runs.
func (d *device) writeApart(h offload.Header, parts [][]byte) error {
	run, err := offload.Take(h, bytes.Join(parts, nil))
	if err != nil {
		return d.explain("write", err)
	}
	var cut offload.Cutter
	var one offload.Merger
	cut.Start(run, len(run.Data))
	for pkt := cut.Next(); pkt != nil; pkt = cut.Next() {
		one.Add(offload.Packet{Data: pkt, Shape: offload.Partial})
		if err := d.Write(one.Take()); err != nil {
			return err
		}
	}
	return nil
}

// explain gives the errors of a closed device one name.
func (d *device) explain(verb string, err error) error {
	if d.fd.Closed() {
		err = os.ErrClosed
	}
	return fmt.Errorf("%s device: %w", verb, err)
}
