// Package slotstest makes small operating systems and disks for tests: real in
// form, with nothing in them that would run.
package slotstest

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
)

// gpt is a disk of 256 KiB that sfdisk (util-linux 2.38) made, with the
// partitions of a machine.
//
//go:embed gpt.img.gz
var gpt []byte

// Disk returns an empty disk with the partitions of a machine: both slots have
// 64 KiB for a root and 16 KiB for a hash tree.
func Disk() []byte {
	z, err := gzip.NewReader(bytes.NewReader(gpt))
	if err != nil {
		panic(err) // the file is part of this package
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		panic(err)
	}
	return raw
}

// block is that of dm-verity, in bytes.
const block = 4096

// Salt is the salt of every tree here.
var Salt = []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// Tree makes a dm-verity hash tree of whole blocks, as veritysetup does.
func Tree(data []byte) (tree []byte, rootHash string) {
	sum := func(b []byte) []byte {
		h := sha256.Sum256(append(bytes.Clone(Salt), b...))
		return h[:]
	}
	sb := make([]byte, block)
	copy(sb, "verity\x00\x00")
	le := binary.LittleEndian
	le.PutUint32(sb[8:], 1)  // version
	le.PutUint32(sb[12:], 1) // kind of hash
	sb[31] = 1               // UUID
	copy(sb[32:], "sha256")
	le.PutUint32(sb[64:], block)
	le.PutUint32(sb[68:], block)
	le.PutUint64(sb[72:], uint64(len(data)/block))
	le.PutUint16(sb[80:], uint16(len(Salt)))
	copy(sb[88:], Salt)
	var levels []byte
	for len(data) > block {
		var up []byte
		for i := 0; i < len(data); i += block {
			up = append(up, sum(data[i:i+block])...)
		}
		up = append(up, make([]byte, (block-len(up)%block)%block)...)
		levels, data = append(bytes.Clone(up), levels...), up
	}
	return append(sb, levels...), hex.EncodeToString(sum(data))
}

// UKI makes a program that is one as far as systemd-boot looks, of at least 2 KiB.
func UKI(arch, cmdline string, size int) []byte {
	out := make([]byte, max(size, 2048))
	le := binary.LittleEndian
	copy(out, "MZ")
	le.PutUint32(out[60:], 128)
	copy(out[128:], "PE\x00\x00")
	le.PutUint16(out[132:], map[string]uint16{"amd64": 0x8664, "arm64": 0xaa64}[arch])
	le.PutUint16(out[134:], 2)
	le.PutUint16(out[148:], 240) // of the optional header
	at := 128 + 24 + 240
	for i, s := range []struct{ name, content string }{{".osrel", "NAME=Kairos\n"}, {".cmdline", cmdline}} {
		h, place := out[at+i*40:], 1024+i*512
		copy(h[:8], s.name)
		le.PutUint32(h[8:], uint32(len(s.content)))
		le.PutUint32(h[16:], 512)
		le.PutUint32(h[20:], uint32(place))
		copy(out[place:], s.content)
	}
	for i := 2048; i < len(out); i++ {
		out[i] = byte(i) // the kernel
	}
	return out
}

// System is an operating system of a few blocks.
type System struct {
	Version, Arch, RootHash string
	Root, Verity, UKI       []byte
}

// New makes a system of its own for each version and architecture.
func New(version, arch string) System {
	root := bytes.Repeat(fmt.Appendf(nil, "%-8.8s%-8.8s", version, arch), 12*block/16)
	tree, rootHash := Tree(root)
	return System{Version: version, Arch: arch, RootHash: rootHash, Root: root, Verity: tree,
		UKI: UKI(arch, "gpt roothash="+rootHash+" panic=10", 3000)}
}
