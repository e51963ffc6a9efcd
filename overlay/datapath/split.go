package datapath

import (
	"encoding/binary"
	"sync"
)

// Every network carries IPv6 packets of 1280 bytes (RFC 8200, section 5), and so must
// this one; but datagrams with such a packet in them do not fit a path of that size. It
// then takes two of them:
//
//	number (4 bytes)   the first or the last part of the packet
//
// Only paths that narrow pay for this: TCP's packets are cut to fit.
const splitHeader = 4

// Parts that wait for the other one, and the longest packet that they make.
const (
	waitingParts = 16
	longestSplit = 2 * MinMTU
)

// split sends a packet in two datagrams.
func (k *packer) split(pkt []byte, flags byte) bool {
	k.number++
	at := (len(pkt) + 1) / 2
	for i, part := range [2][]byte{pkt[:at], pkt[at:]} {
		k.half = append(binary.BigEndian.AppendUint32(k.half[:0], k.number), part...)
		if !k.seal(k.half, flags|[2]byte{flagHead, flagTail}[i], i) { // the last part stands for the packet
			if i == 0 {
				k.count.drop(DropLinkLost, 1)
			}
			return false
		}
	}
	return true
}

// pieces are the parts of packets whose other part has not come yet. The zero value has
// none.
type pieces struct {
	mu      sync.Mutex
	waiting [waitingParts]piece
}

type piece struct {
	number uint32
	flags  byte // 0: there is none
	part   []byte
}

// join takes a part, and returns the packet that it completes; nil where the other part
// has not come. It returns false for what is no part.
func (w *pieces) join(payload []byte, flags byte) (pkt []byte, ok bool) {
	kind := flags & (flagHead | flagTail)
	if len(payload) <= splitHeader || kind == flagHead|flagTail || len(payload) > longestSplit {
		return nil, false
	}
	number, part := binary.BigEndian.Uint32(payload), payload[splitHeader:]
	w.mu.Lock()
	defer w.mu.Unlock()
	other := &w.waiting[number%waitingParts]
	if other.flags == 0 || other.number != number || (other.flags^flags)&(flagHead|flagTail) != flagHead|flagTail {
		*other = piece{number, flags, append([]byte(nil), part...)}
		return nil, true
	}
	first, last := other.part, part
	if kind == flagHead {
		first, last = part, other.part
	}
	pkt = append(append(make([]byte, 0, len(first)+len(last)), first...), last...)
	*other = piece{}
	return pkt, true
}
