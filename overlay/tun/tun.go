// Package tun is the node's overlay interface: a TUN device and its addresses
// and routes in the kernel.
//
// The device is opened by songgao/water and read and written in batches: one
// wait, then as many packets as there are. Addresses and routes are reconciled
// by netlink: SetAddrs and SetRoutes say what should be there, and only the
// difference is done, so that a restart on a persistent device changes nothing
// that open connections rely on.
//
// What belongs to whom: every global address on the interface is ours, and so
// are the routes that carry our protocol numbers (see protoAddr, protoRoute).
// Other routes, also those through the interface, are left alone.
//
// An address is installed as a host address (/32, /128) next to a route for its
// network. A network on the address itself would make the kernel treat a second
// address in it as secondary, and drop it together with the first.
//
// tun/tuntest is the same device made of channels.
package tun

import (
	"errors"
	"net/netip"
)

// Sentinel errors of Open. Their wrapped form says what to do next.
var (
	// ErrNoDevice is returned when the system has no TUN support to offer.
	ErrNoDevice = errors.New("no TUN device on this system")
	// ErrPermission is returned when the process may not create or configure interfaces.
	ErrPermission = errors.New("not permitted to make a network interface")
	// ErrNameTaken is returned when another program, or an interface of another kind, has the name.
	ErrNameTaken = errors.New("interface name is taken")
	// ErrRouteTaken is returned when the host already routes one of our networks elsewhere.
	ErrRouteTaken = errors.New("network is already routed elsewhere on this host")
)

// Device moves whole IP packets, without any link header, between the kernel and the program.
//
// One goroutine may call Read; any number may call Write at the same time.
type Device interface {
	// Read waits for packets and stores one in each of bufs, its length in
	// sizes, which must be as long as bufs. It returns how many it stored, at
	// least one without an error. Longer packets than their buffer are cut off.
	// After Close it returns an error that is os.ErrClosed.
	Read(bufs [][]byte, sizes []int) (n int, err error)
	// Write hands packets to the kernel and returns how many it took. A packet
	// that the kernel refuses is passed over; err is then the first refusal. It
	// does not keep pkts.
	Write(pkts [][]byte) (n int, err error)
	// MTU is the largest packet in bytes that the kernel hands to Read.
	MTU() int
	// Name is the interface's name.
	Name() string
	// Close unblocks Read. Calling it again does nothing.
	Close() error
}

// Config describes the interface that Open makes or takes over.
type Config struct {
	// Name of the interface, 1 to 15 bytes.
	Name string
	// MTU in bytes; see datapath.MTU, which alone decides it.
	MTU int
	// Persist keeps the interface, its addresses and routes when the program
	// ends, and takes them over when it starts again. Without it the interface
	// must not exist before Open and is gone after Close.
	Persist bool
	// Addrs as in SetAddrs.
	Addrs []netip.Prefix
}

// Route sends a prefix through the interface.
type Route struct {
	Prefix netip.Prefix
	// Src is the source address of packets that local programs send along the
	// route without choosing one. The zero Addr leaves the choice to the kernel.
	Src netip.Addr
}

// maxName is IFNAMSIZ without its terminating zero.
const maxName = 15
