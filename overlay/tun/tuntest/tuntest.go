// Package tuntest is a TUN device made of channels, for tests of what reads
// and writes packets without a kernel and without root.
package tuntest

import (
	"bytes"
	"fmt"
	"os"
	"sync"

	"github.com/kairos-io/kairos/overlay/offload"
	"github.com/kairos-io/kairos/overlay/tun"
)

// Device is a tun.Device whose kernel side is the test: Inject is a packet that
// a local program sends, Out is what local programs would receive.
type Device struct {
	// Out carries a copy of each packet written to the device. Write blocks
	// while it is full, and returns when the device is closed.
	Out chan []byte

	name string
	mtu  int
	in   chan []byte
	done chan struct{}
	once sync.Once
	next []byte // what Wait has taken for Read
}

var _ tun.Device = (*Device)(nil)

// New makes a device. Both directions hold depth packets.
func New(name string, mtu, depth int) *Device {
	return &Device{
		Out:  make(chan []byte, depth),
		name: name,
		mtu:  mtu,
		in:   make(chan []byte, depth),
		done: make(chan struct{}),
	}
}

// Inject hands a packet to the reader of the device; it blocks while the
// device holds as many as it can. It reports false once the device is closed.
func (d *Device) Inject(pkt []byte) bool {
	select {
	case <-d.done:
		return false
	default:
	}
	select {
	case d.in <- append([]byte(nil), pkt...):
		return true
	case <-d.done:
		return false
	}
}

// Wait implements tun.Device.
func (d *Device) Wait(bool) error {
	if d.next != nil {
		return nil
	}
	select {
	case d.next = <-d.in:
		return nil
	case <-d.done:
		return fmt.Errorf("wait for %s: %w", d.name, os.ErrClosed)
	}
}

// Read implements tun.Device.
func (d *Device) Read(buf []byte) (offload.Packet, error) {
	pkt := d.next
	d.next = nil
	if pkt == nil {
		select {
		case <-d.done:
			return offload.Packet{}, fmt.Errorf("read %s: %w", d.name, os.ErrClosed)
		case pkt = <-d.in:
		default:
			return offload.Packet{}, nil
		}
	}
	return offload.Packet{Data: buf[:copy(buf, pkt)]}, nil
}

// Write implements tun.Device.
func (d *Device) Write(_ offload.Header, parts [][]byte) error {
	select {
	case <-d.done:
		return fmt.Errorf("write %s: %w", d.name, os.ErrClosed)
	case d.Out <- bytes.Join(parts, nil):
		return nil
	}
}

// MTU implements tun.Device.
func (d *Device) MTU() int { return d.mtu }

// Close implements tun.Device.
func (d *Device) Close() error {
	d.once.Do(func() { close(d.done) })
	return nil
}
