package disk

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// The program does what it says, on a processor that knows its instructions and no others.
func TestBootSector(t *testing.T) {
	program := bootSector()
	if len(program) > bootCode {
		t.Fatalf("it has %d bytes, the table begins at %d", len(program), bootCode)
	}
	memory := make([]byte, 1<<16)
	copy(memory[origin:], program)
	var screen []byte
	var ax, bx, si uint16
	zero := false
	for ip, steps := uint16(origin), 0; ; steps++ {
		if steps > 10000 {
			t.Fatal("it does not halt")
		}
		word := binary.LittleEndian.Uint16(memory[ip+1:])
		short := ip + 2 + uint16(int8(memory[ip+1]))
		switch memory[ip] {
		case 0x31:
			ax, ip = 0, ip+2
		case 0x8e, 0xfc, 0xbc: // segments, direction, stack: as they are
			ip += map[byte]uint16{0x8e: 2, 0xfc: 1, 0xbc: 3}[memory[ip]]
		case 0xbe:
			si, ip = word, ip+3
		case 0xac:
			ax, si, ip = ax&0xff00|uint16(memory[si]), si+1, ip+1
		case 0x84:
			zero, ip = ax&0xff == 0, ip+2
		case 0x74:
			ip += 2
			if zero {
				ip = short
			}
		case 0xb4:
			ax, ip = ax&0xff|uint16(memory[ip+1])<<8, ip+2
		case 0xbb:
			bx, ip = word, ip+3
		case 0xcd:
			if memory[ip+1] != 0x10 || ax>>8 != 0x0e || bx != 7 {
				t.Fatalf("it calls %#x with ax %#x, bx %#x", memory[ip+1], ax, bx)
			}
			screen, ip = append(screen, byte(ax)), ip+2
		case 0xeb:
			ip = short
		case 0xf4:
			if string(screen) != biosText {
				t.Errorf("it writes %q", screen)
			}
			if memory[ip+1] != 0xeb || ip+3+uint16(int8(memory[ip+2])) != ip {
				t.Error("an interrupt would lead it astray")
			}
			return
		default:
			t.Fatalf("no instruction at %#x: %#x", ip, memory[ip])
		}
	}
}

func TestBootSectorLeavesTheTable(t *testing.T) {
	medium := filepath.Join(t.TempDir(), "medium")
	before := bytes.Repeat([]byte{0xaa}, 4096)
	if err := os.WriteFile(medium, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeBootSector(medium); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(medium)
	if err != nil || !bytes.Equal(after[bootCode:], before[bootCode:]) || !bytes.HasPrefix(after, bootSector()) {
		t.Errorf("the sector is %x, %v", after[:512], err)
	}
}
