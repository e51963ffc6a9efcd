package session

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// What a packet adds to its payload, in bytes.
const (
	HeaderSize = 16
	TagSize    = 16
	Overhead   = HeaderSize + TagSize
)

// packetType is the first byte of a packet.
const packetType = 0x01

// RejectAfterPackets is how many packets one key seals at most, and
// RekeyAfterPackets when new keys are asked for. NIST SP 800-38D allows 2^32
// blocks of 16 bytes in one packet and 2^64 blocks of them all with nonces that
// are counted; this stays far below.
const (
	RekeyAfterPackets  = 1 << 36
	RejectAfterPackets = 1 << 37
)

// Why a packet is not opened.
var (
	ErrPacket = errors.New("not a packet of this session") // forged, damaged or with other keys
	ErrReplay = errors.New("packet seen before, or too old to tell")
	ErrSpent  = errors.New("the keys have sealed as many packets as they may")
)

// Keys are what one handshake made. Seal and Open may be called from any
// goroutine; each is for one at a time.
type Keys struct {
	suite     Suites
	initiator bool
	local     uint32 // marks packets to us
	remote    uint32 // marks packets to the peer
	send      cipher.AEAD
	receive   cipher.AEAD

	counter atomic.Uint64 // of the next packet to be sealed

	sealing sync.Mutex
	out     [12]byte // the nonce of Seal

	opening sync.Mutex
	in      [12]byte // the nonce of Open
	seen    window
}

// direction is one of the two ways that packets go.
type direction struct {
	key   [keySize]byte
	index uint32
}

func newKeys(suite Suites, send, receive direction) (*Keys, error) {
	k := &Keys{suite: suite, local: receive.index, remote: send.index}
	var err error
	if k.send, err = suite.aead(send.key); err != nil {
		return nil, fmt.Errorf("make keys: %w", err)
	}
	if k.receive, err = suite.aead(receive.key); err != nil {
		return nil, fmt.Errorf("make keys: %w", err)
	}
	return k, nil
}

// Index is how packets for these keys are marked: what tells a receiver with
// many sessions which of them a packet is for.
func (k *Keys) Index() uint32 { return k.local }

// Suite is the AEAD of these keys.
func (k *Keys) Suite() Suites { return k.suite }

// String tells keys apart and shows nothing of them.
func (k *Keys) String() string { return fmt.Sprintf("(keys %08x)", k.local) }

// GoString is String.
func (k *Keys) GoString() string { return k.String() }

// Index reads which keys a datagram is for. ok is false for what is no packet of
// this version.
func Index(datagram []byte) (index uint32, ok bool) {
	if len(datagram) < Overhead || datagram[0] != packetType || datagram[2]|datagram[3] != 0 {
		return 0, false
	}
	return binary.BigEndian.Uint32(datagram[4:]), true
}

// Flags reads what the sender of a datagram says about its payload: true once Open
// has accepted that.
func Flags(datagram []byte) byte { return datagram[1] }

// Seal appends the packet of a payload to dst, which has to have room for
// len(payload)+Overhead more bytes if nothing is to be allocated. payload and
// that room may not overlap, unless payload begins exactly where the AEAD's
// output will: HeaderSize bytes into it. flags say something about the payload that
// everybody may know and nobody can change.
func (k *Keys) Seal(dst, payload []byte, flags byte) ([]byte, error) {
	n := k.counter.Add(1) - 1
	if n >= RejectAfterPackets {
		return dst, ErrSpent
	}
	k.sealing.Lock()
	defer k.sealing.Unlock()
	at := len(dst)
	dst = append(dst, packetType, flags, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, k.remote)
	dst = binary.BigEndian.AppendUint64(dst, n)
	binary.BigEndian.PutUint64(k.out[4:], n)
	return k.send.Seal(dst, k.out[:], payload, dst[at:]), nil
}

// Open checks a datagram whose Index is that of these keys and appends its
// payload to dst. datagram[HeaderSize:HeaderSize] as dst opens it in place.
func (k *Keys) Open(dst, datagram []byte) ([]byte, error) {
	if index, ok := Index(datagram); !ok || index != k.local {
		return dst, ErrPacket
	}
	n := binary.BigEndian.Uint64(datagram[8:])
	if n >= RejectAfterPackets {
		return dst, ErrPacket
	}
	k.opening.Lock()
	defer k.opening.Unlock()
	if !k.seen.fresh(n) {
		return dst, ErrReplay
	}
	binary.BigEndian.PutUint64(k.in[4:], n)
	out, err := k.receive.Open(dst, k.in[:], datagram[HeaderSize:], datagram[:HeaderSize])
	if err != nil {
		return dst, ErrPacket
	}
	k.seen.mark(n)
	return out, nil
}
