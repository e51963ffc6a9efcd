package slots

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// sectorSize is what a disk writes as a whole or not at all.
const sectorSize = 512

// Limits of what is believed of a program for the firmware.
const (
	maxSections = 96       // the limit of the Windows loader, and of systemd
	maxCmdline  = 64 << 10 // bytes
)

// errNotUKI: systemd-boot would pass it over too.
var errNotUKI = errors.New("not a unified kernel image")

// UKI is what a unified kernel image says about itself.
type UKI struct {
	Arch     string // Go's name; "" for one that this project does not know
	RootHash string // of the system that it starts; "" when it names none
}

// machines are the values of the PE header's field.
var machines = map[uint16]string{0x8664: "amd64", 0xaa64: "arm64"}

// ReadUKI reads the headers and the command line of a unified kernel image
// (PE format; systemd-stub(7)). debug/pe is not made for files from strangers.
func ReadUKI(r io.ReaderAt) (UKI, error) {
	head := make([]byte, 64)
	if _, err := r.ReadAt(head, 0); err != nil || head[0] != 'M' || head[1] != 'Z' {
		return UKI{}, errNotUKI
	}
	at := int64(binary.LittleEndian.Uint32(head[60:]))
	coff := make([]byte, 24)
	if _, err := r.ReadAt(coff, at); err != nil || !bytes.Equal(coff[:4], []byte("PE\x00\x00")) {
		return UKI{}, errNotUKI
	}
	count, optional := int(binary.LittleEndian.Uint16(coff[6:])), int64(binary.LittleEndian.Uint16(coff[20:]))
	if count > maxSections {
		return UKI{}, errNotUKI
	}
	sections := make([]byte, count*40)
	if _, err := r.ReadAt(sections, at+24+optional); err != nil {
		return UKI{}, errNotUKI
	}
	u := UKI{Arch: machines[binary.LittleEndian.Uint16(coff[4:])]}
	for ; len(sections) > 0; sections = sections[40:] {
		if string(bytes.TrimRight(sections[:8], "\x00")) != ".cmdline" {
			continue
		}
		// The raw size is rounded up; the virtual one is exact.
		size := min(binary.LittleEndian.Uint32(sections[8:]), binary.LittleEndian.Uint32(sections[16:]))
		if size > maxCmdline {
			return UKI{}, fmt.Errorf("%w: its command line has %d bytes", errNotUKI, size)
		}
		cmdline := make([]byte, size)
		if _, err := r.ReadAt(cmdline, int64(binary.LittleEndian.Uint32(sections[20:]))); err != nil {
			return UKI{}, errNotUKI
		}
		u.RootHash = RootHashOf(string(bytes.Trim(cmdline, "\x00")))
		return u, nil
	}
	return UKI{}, fmt.Errorf("%w: it has no command line", errNotUKI)
}
