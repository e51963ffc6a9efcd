package disk

import (
	"encoding/binary"
	"errors"
	"os"
)

// biosText is what a computer shows that looks for a BIOS boot loader on the medium.
const biosText = "\r\nkairos mesh needs UEFI, and this computer starts from disks in BIOS mode.\r\n" +
	"Choose UEFI in its setup (where it is called CSM or legacy boot: switch that off).\r\n"

// origin is where a BIOS loads the first sector to, and bootCode how much of it is a
// program; then come the identifier and the partitions of the protective MBR.
const (
	origin   = 0x7c00
	bootCode = 440
)

// bootSector is a program for the 8086 that writes biosText and halts.
func bootSector() []byte {
	code := []byte{
		0x31, 0xc0, //       xor ax, ax
		0x8e, 0xd8, //       mov ds, ax
		0x8e, 0xd0, //       mov ss, ax
		0xbc, 0x00, 0x7c, // mov sp, origin    the stack lies below
		0xfc,             // cld
		0xbe, 0x00, 0x00, // mov si, text      see below
		0xac,       //       next: lodsb
		0x84, 0xc0, //       test al, al
		0x74, 0x09, //       jz halt
		0xb4, 0x0e, //       mov ah, 0x0e      write al as a terminal does
		0xbb, 0x07, 0x00, // mov bx, 0x0007    page 0, grey
		0xcd, 0x10, //       int 0x10
		0xeb, 0xf2, //       jmp next
		0xf4,       //       halt: hlt
		0xeb, 0xfd, //       jmp halt
	}
	const operand = 11 // of mov si
	binary.LittleEndian.PutUint16(code[operand:], uint16(origin+len(code)))
	return append(code, biosText+"\x00"...)
}

// writeBootSector puts the program before the partition table of a medium.
func writeBootSector(medium string) error {
	f, err := os.OpenFile(medium, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(bootSector(), 0)
	return errors.Join(err, f.Close())
}
