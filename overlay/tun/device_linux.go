package tun

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Interface is an open TUN device together with its configuration in the
// kernel. Its methods may be called from any goroutine, Read from one at a time.
type Interface struct {
	device
	name string
	mtu  int

	mu     sync.Mutex // guards the configuration below
	nl     *netlink.Handle
	link   netlink.Link
	noIPv6 bool
}

var _ Device = (*Interface)(nil)

// Open makes the interface, or with Persist takes over the one a former run
// left, sets its MTU and addresses, and brings it up. The interface lives in
// the network namespace of the calling thread.
func Open(cfg Config) (*Interface, error) {
	if cfg.Name == "" || len(cfg.Name) > maxName {
		return nil, fmt.Errorf("open interface %q: name must have 1 to %d bytes", cfg.Name, maxName)
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	ifc := &Interface{name: cfg.Name, mtu: cfg.MTU, nl: nl}
	if err := ifc.open(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("open interface %s: %w", cfg.Name, err), ifc.Close())
	}
	return ifc, nil
}

// open does the steps of Open; what it leaves half done, Close undoes.
func (i *Interface) open(cfg Config) error {
	if err := i.checkName(cfg); err != nil {
		return err
	}
	wi, err := water.New(water.Config{
		DeviceType: water.TUN,
		PlatformSpecificParams: water.PlatformSpecificParams{
			Name:    cfg.Name,
			Persist: cfg.Persist,
		},
	})
	if err != nil {
		return explainOpen(err)
	}
	if err := i.device.init(wi.ReadWriteCloser); err != nil {
		return err
	}
	if i.link, err = i.nl.LinkByName(cfg.Name); err != nil {
		return fmt.Errorf("find it: %w", err)
	}
	return i.configure(cfg)
}

// checkName refuses a name that is not ours to use, before anything is
// changed: water would turn a persistent device of the service into one that
// vanishes with this program.
func (i *Interface) checkName(cfg Config) error {
	link, err := i.nl.LinkByName(cfg.Name)
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for it: %w", err)
	}
	const hint = "choose another name (overlay.interface in the configuration, --interface on the command line)"
	tap, isTun := link.(*netlink.Tuntap)
	switch {
	case !isTun:
		return fmt.Errorf("%w by a %s interface; %s", ErrNameTaken, link.Type(), hint)
	case tap.Mode != netlink.TUNTAP_MODE_TUN:
		return fmt.Errorf("%w by a TAP interface; %s", ErrNameTaken, hint)
	case !cfg.Persist:
		return fmt.Errorf("%w by another TUN interface; stop the program that uses it or %s", ErrNameTaken, hint)
	}
	return nil
}

// explainOpen turns what the kernel said about TUNSETIFF into what to do about it.
func explainOpen(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: %w; load the kernel module with `modprobe tun`, or give the container /dev/net/tun", ErrNoDevice, err)
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w by another program: %w; stop it, or choose another name (overlay.interface, --interface)", ErrNameTaken, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w; run as root or with CAP_NET_ADMIN", ErrPermission, err)
	}
	return err
}

// Name implements Device.
func (i *Interface) Name() string { return i.name }

// MTU implements Device.
func (i *Interface) MTU() int { return i.mtu }

// Close implements Device. A persistent interface stays, with its addresses
// and routes, for the next Open; any other is removed by the kernel.
func (i *Interface) Close() error {
	err := i.device.close()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.nl != nil {
		i.nl.Close()
		i.nl = nil
	}
	return err
}

// device reads and writes batches through the runtime's poller. The callbacks
// and what they work on live in the struct, so that a batch costs no allocation.
type device struct {
	closer io.Closer
	raw    syscall.RawConn
	once   sync.Once
	closed atomic.Bool

	readFn func(fd uintptr) bool
	bufs   [][]byte
	sizes  []int
	nread  int
	rerr   error

	wmu     sync.Mutex
	writeFn func(fd uintptr) bool
	pkts    [][]byte
	next    int // index of the packet to write
	written int
	werr    error
}

// init takes over water's file. Its Close wakes a waiting Read because the
// file is non-blocking and therefore in the runtime's poller; the raw
// connection is what lets one wake-up take more than one packet.
func (d *device) init(rwc io.ReadWriteCloser) error {
	d.closer = rwc
	conn, ok := rwc.(syscall.Conn)
	if !ok {
		return fmt.Errorf("take over the device's file: %T has no raw connection", rwc)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("take over the device's file: %w", err)
	}
	d.raw = raw
	d.readFn = d.readBatch
	d.writeFn = d.writeBatch
	return nil
}

func (d *device) close() error {
	var err error
	d.once.Do(func() {
		d.closed.Store(true)
		if d.closer != nil {
			err = d.closer.Close()
		}
	})
	return err
}

// Read implements Device.
func (d *device) Read(bufs [][]byte, sizes []int) (int, error) {
	d.bufs, d.sizes, d.nread, d.rerr = bufs, sizes, 0, nil
	err := d.raw.Read(d.readFn)
	if err == nil {
		err = d.rerr
	}
	if err != nil {
		return 0, d.explain("read", err)
	}
	return d.nread, nil
}

// readBatch reads until the batch or the queue ends; false means wait for more.
func (d *device) readBatch(fd uintptr) bool {
	for d.nread < len(d.bufs) {
		n, err := unix.Read(int(fd), d.bufs[d.nread])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return d.nread > 0
		case err != nil || n == 0:
			if d.nread > 0 {
				return true // the error comes again
			}
			d.rerr = err
			if err == nil {
				d.rerr = io.EOF
			}
			return true
		}
		d.sizes[d.nread] = n
		d.nread++
	}
	return true
}

// Write implements Device.
func (d *device) Write(pkts [][]byte) (int, error) {
	d.wmu.Lock()
	defer d.wmu.Unlock()
	d.pkts, d.next, d.written, d.werr = pkts, 0, 0, nil
	err := d.raw.Write(d.writeFn)
	d.pkts = nil
	if err == nil {
		err = d.werr
	}
	if err != nil {
		return d.written, d.explain("write", err)
	}
	return d.written, nil
}

// explain gives the errors of a closed device one name; the poller's own is not exported.
func (d *device) explain(verb string, err error) error {
	if d.closed.Load() {
		err = os.ErrClosed
	}
	return fmt.Errorf("%s device: %w", verb, err)
}

func (d *device) writeBatch(fd uintptr) bool {
	for d.next < len(d.pkts) {
		_, err := unix.Write(int(fd), d.pkts[d.next])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return false
		case err == nil:
			d.written++
		case d.werr == nil:
			d.werr = err
		}
		if err == unix.EBADFD { // the interface was deleted: the rest fails alike
			return true
		}
		d.next++
	}
	return true
}
