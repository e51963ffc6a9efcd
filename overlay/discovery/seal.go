package discovery

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Specification constants of announcements.
const (
	tagEnd    = 0
	tagWindow = 1
	tagID     = 2
	tagAddrs  = 3
	critical  = 0x80

	fieldHead = 3 // tag 1 byte, length 2 bytes
	addrSize  = 16 + 2
	// maxListed bounds the addresses in one announcement.
	maxListed = 16
	// plainSize is the length of every announcement in bytes: how many addresses a
	// machine has must not show.
	plainSize  = 384
	sealedSize = chacha20poly1305.NonceSizeX + plainSize + chacha20poly1305.Overhead
)

// errForeign is for messages that are not from a member; most mDNS traffic is not.
var errForeign = errors.New("not an announcement of this network")

// announcement is what a member says about itself.
type announcement struct {
	Window uint32
	ID     identity.ID
	Addrs  []netip.AddrPort // where it listens, the most useful first; no zones
}

// seal encodes an announcement so that only those with the key can read or make one.
// Addresses that nobody can call, and those beyond maxListed, are left out.
func (a announcement) seal(key cipher.AEAD, random io.Reader) ([]byte, error) {
	plain := make([]byte, 0, plainSize)
	plain = appendField(plain, tagWindow, binary.BigEndian.AppendUint32(nil, a.Window))
	plain = appendField(plain, tagID, a.ID[:])
	var list []byte
	for _, addr := range a.Addrs {
		addr, ok := callable(addr)
		if !ok || len(list) >= maxListed*addrSize {
			continue
		}
		raw := addr.Addr().As16()
		list = binary.BigEndian.AppendUint16(append(list, raw[:]...), addr.Port())
	}
	plain = appendField(plain, tagAddrs, list)
	out := make([]byte, chacha20poly1305.NonceSizeX, sealedSize)
	if _, err := io.ReadFull(random, out); err != nil {
		return nil, fmt.Errorf("seal announcement: %w", err)
	}
	return key.Seal(out, out, plain[:plainSize], nil), nil // beyond its length a fresh slice is zero
}

func appendField(to []byte, tag byte, value []byte) []byte {
	to = append(to, tag)
	to = binary.BigEndian.AppendUint16(to, uint16(len(value)))
	return append(to, value...)
}

// open reads what seal wrote, or a later version of it. It keeps nothing of sealed.
func open(key cipher.AEAD, sealed []byte) (announcement, error) {
	if len(sealed) != sealedSize {
		return announcement{}, errForeign
	}
	plain, err := key.Open(nil, sealed[:key.NonceSize()], sealed[key.NonceSize():], nil)
	if err != nil {
		return announcement{}, errForeign
	}
	return parseAnnouncement(plain)
}

func parseAnnouncement(raw []byte) (a announcement, err error) {
	var last byte
	for len(raw) > 0 && raw[0] != tagEnd {
		if len(raw) < fieldHead {
			return announcement{}, errors.New("read announcement: a field is cut off")
		}
		tag, size := raw[0], int(binary.BigEndian.Uint16(raw[1:fieldHead]))
		raw = raw[fieldHead:]
		if tag <= last || size > len(raw) {
			return announcement{}, fmt.Errorf("read announcement: field %d is cut off or out of order", tag)
		}
		value := raw[:size]
		last, raw = tag, raw[size:]
		switch {
		case tag == tagWindow && size == 4:
			a.Window = binary.BigEndian.Uint32(value)
		case tag == tagID && size == len(a.ID):
			a.ID = identity.ID(value)
		case tag == tagAddrs && size%addrSize == 0:
			a.Addrs = parseAddrs(value)
		case tag <= tagAddrs || tag >= critical:
			return announcement{}, fmt.Errorf("read announcement: field %d of %d bytes is unknown", tag, size)
		}
	}
	if a.ID.IsZero() {
		return announcement{}, errors.New("read announcement: no ID")
	}
	return a, nil
}

// parseAddrs passes over what cannot be called: the others may be good.
func parseAddrs(raw []byte) (out []netip.AddrPort) {
	for ; len(raw) >= addrSize && len(out) < maxListed; raw = raw[addrSize:] {
		addr := netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw)), binary.BigEndian.Uint16(raw[16:]))
		if addr, ok := callable(addr); ok && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// callable returns an address without disguise if a stranger may have a node call it: it
// is one machine's, that machine is not this one, and it means the same on every machine.
func callable(addr netip.AddrPort) (netip.AddrPort, bool) {
	ip := addr.Addr().Unmap()
	ok := ip.IsValid() && ip.Zone() == "" && addr.Port() != 0 &&
		!ip.IsUnspecified() && !ip.IsLoopback() && !ip.IsMulticast() &&
		!(ip.Is6() && ip.IsLinkLocalUnicast()) && ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return netip.AddrPortFrom(ip, addr.Port()), ok
}
