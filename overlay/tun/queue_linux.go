package tun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

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
	udp    bool
	closed atomic.Bool

	mu   sync.RWMutex // held for reading while the descriptors are in use
	fd   int
	stop int // eventfd(2) that ends Wait
}

// open opens a queue on the interface, which becomes what cfg says.
func (d *device) open(cfg Config) error {
	d.fd, d.stop = -1, -1
	err := d.attach(cfg)
	if err != nil {
		return errors.Join(err, d.close())
	}
	return nil
}

func (d *device) attach(cfg Config) error {
	var err error
	if d.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("make an eventfd: %w", err)
	}
	if d.fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
		return err
	}
	req, err := unix.NewIfreq(cfg.Name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(d.fd, unix.TUNSETIFF, req); err != nil {
		return err
	}
	persist := 0
	if cfg.Persist {
		persist = 1
	}
	if err := unix.IoctlSetInt(d.fd, unix.TUNSETPERSIST, persist); err != nil {
		return fmt.Errorf("set persistence: %w", err)
	}
	if err := unix.IoctlSetPointerInt(d.fd, unix.TUNSETVNETHDRSZ, offload.HeaderSize); err != nil {
		return fmt.Errorf("set size of header: %w", err)
	}
	if unix.IoctlSetInt(d.fd, unix.TUNSETOFFLOAD, tcpOffloads|udpOffloads) == nil {
		d.udp = true
		return nil
	}
	if err := unix.IoctlSetInt(d.fd, unix.TUNSETOFFLOAD, tcpOffloads); err != nil {
		return fmt.Errorf("set offloads: %w", err)
	}
	return nil
}

func (d *device) close() error {
	if d.closed.Swap(true) {
		return nil
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	if d.stop >= 0 {
		_, _ = unix.Write(d.stop, one[:]) // an eventfd takes a 1 always
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, fd := range []int{d.fd, d.stop} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	d.fd, d.stop = -1, -1
	return errors.Join(errs...)
}

// use takes the descriptors for a call that done ends.
func (d *device) use() bool {
	if d.closed.Load() {
		return false
	}
	d.mu.RLock()
	if d.fd < 0 {
		d.mu.RUnlock()
		return false
	}
	return true
}

func (d *device) done() { d.mu.RUnlock() }

// Wait implements Device.
func (d *device) Wait() error {
	if !d.use() {
		return d.explain("wait for", os.ErrClosed)
	}
	defer d.done()
	fds := [...]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}, {Fd: int32(d.stop), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds[:], -1)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return d.explain("wait for", err)
		case fds[1].Revents != 0:
			return d.explain("wait for", os.ErrClosed)
		default:
			return nil // also where the interface was deleted: Read says so
		}
	}
}

// Read implements Device. It enters the kernel without telling the scheduler, which
// costs as much as a small packet does: the call never sleeps.
func (d *device) Read(buf []byte) (offload.Packet, error) {
	if !d.use() {
		return offload.Packet{}, d.explain("read", os.ErrClosed)
	}
	defer d.done()
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(d.fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)))
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

// MergesUDP implements Device.
func (d *device) MergesUDP() bool { return d.udp }

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
	if len(parts) > maxParts {
		return d.explain("write", unix.EMSGSIZE)
	}
	if !d.use() {
		return d.explain("write", os.ErrClosed)
	}
	defer d.done()
	v := vectorPool.Get().(*vectors)
	defer vectorPool.Put(v)
	h.Encode(v.header[:])
	v.parts[0].Base = &v.header[0]
	v.parts[0].SetLen(len(v.header))
	for i, p := range parts {
		v.parts[i+1].Base = unsafe.SliceData(p)
		v.parts[i+1].SetLen(len(p))
	}
	defer clear(v.parts[:len(parts)+1]) // what was written is not kept alive
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(d.fd), uintptr(unsafe.Pointer(&v.parts[0])), uintptr(len(parts)+1))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return d.explain("write", errno)
		}
	}
}

// explain gives the errors of a closed device one name.
func (d *device) explain(verb string, err error) error {
	if d.closed.Load() {
		err = os.ErrClosed
	}
	return fmt.Errorf("%s device: %w", verb, err)
}
