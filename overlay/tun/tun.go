// Package tun is the node's overlay interface: a TUN device and its addresses
// and routes in the kernel.
//
// The interface is made by songgao/water; packets come and go through a queue of
// our own on it, with a virtio-net header each, so that TCP and UDP hand over what
// they would hand to a network card (package offload). Reads and writes enter the
// kernel without telling the scheduler (package poll). Addresses and routes are
// reconciled by netlink: SetAddrs and SetRoutes say what should be there, and only
// the difference is done, so that a restart on a persistent device changes nothing
// that open connections rely on. Changed tells when somebody else has changed what
// the kernel knows, so that it can be set again at once.
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

	"github.com/kairos-io/kairos/overlay/offload"
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

// Device moves IP packets between the kernel and the program, in the shapes of
// package offload.
//
// One goroutine may call Wait and Read; any number may call Write at the same time.
type Device interface {
	// Wait returns when there may be something to read. busy says that there will be
	// soon: it then does not ask to be woken, but lets some come together. After Close
	// Wait or the next Read returns an error that is os.ErrClosed.
	Wait(busy bool) error
	// Read takes one packet into buf, which has room for offload.BufferSize bytes, and
	// returns it as a part of buf; one without data means that nothing is there. It
	// does not wait. Packets that the kernel and offload do not agree on are passed
	// over with an error that is offload.ErrPacket.
	Read(buf []byte) (offload.Packet, error)
	// Write hands a packet to the kernel, in parts; the header describes them all.
	Write(h offload.Header, parts [][]byte) error
	// MTU is the largest packet in bytes that the kernel hands to Read, or the
	// largest segment of one.
	MTU() int
	// Close unblocks Wait. Calling it again does nothing.
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

// Shadow is a route of the host that takes packets away from the interface.
type Shadow struct {
	Prefix    netip.Prefix
	Interface string // where it sends them; empty where nothing has that name any more
}

// maxName is IFNAMSIZ without its terminating zero.
const maxName = 15
