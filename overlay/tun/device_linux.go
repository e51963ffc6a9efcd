package tun

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Interface is an open TUN device together with its configuration in the
// kernel. Its methods may be called from any goroutine, Read from one at a time.
type Interface struct {
	device
	name    string
	mtu     int
	watcher *watcher

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
	if err := create(cfg.Name); err != nil {
		return explainOpen(err)
	}
	if err := i.device.open(cfg); err != nil {
		return explainOpen(err)
	}
	var err error
	if i.link, err = i.nl.LinkByName(cfg.Name); err != nil {
		return fmt.Errorf("find it: %w", err)
	}
	if i.watcher, err = newWatcher(i.link.Attrs().Index); err != nil {
		return err
	}
	return i.configure(cfg)
}

// create makes the interface unless it is there. It persists until a queue with
// other wishes is opened on it: water knows no virtio-net header.
func create(name string) error {
	ifc, err := water.New(water.Config{
		DeviceType:             water.TUN,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: name, Persist: true},
	})
	if err != nil {
		return err
	}
	return ifc.Close()
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
	if i.watcher != nil {
		i.watcher.close()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.nl != nil {
		i.nl.Close()
		i.nl = nil
	}
	return err
}
