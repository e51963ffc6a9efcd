package slots

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// UUID is a GUID in the order of its text, which is the order of a root hash's
// digits; on disk the first three fields are little-endian.
type UUID [16]byte

// String returns the usual text, lower case.
func (u UUID) String() string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// swapped converts between the order of the text and that of the disk.
func (u UUID) swapped() UUID {
	return UUID{u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]}
}

// Partition is an entry of the partition table.
type Partition struct {
	Number      int // from 1
	Label       string
	UUID        UUID
	Start, Size int64 // bytes
}

// Limits of what is believed of a partition table.
const (
	maxPartitions = 128
	entrySize     = 128
	headerSize    = 92
)

var gptSignature = []byte("EFI PART")

// table is one of the two copies of a GPT.
type table struct {
	header  []byte // the whole sector
	entries []byte
	sector  int64 // bytes
}

// at returns the header's place in bytes, and array that of the entries.
func (t *table) at() int64    { return int64(binary.LittleEndian.Uint64(t.header[24:])) * t.sector }
func (t *table) array() int64 { return int64(binary.LittleEndian.Uint64(t.header[72:])) * t.sector }

// backup returns where the other copy's header is, in bytes.
func (t *table) backup() int64 { return int64(binary.LittleEndian.Uint64(t.header[32:])) * t.sector }

// readTable reads the copy whose header is at this place and checks both sums.
func readTable(disk io.ReaderAt, place, sector int64) (*table, error) {
	t := &table{header: make([]byte, sector), sector: sector}
	if _, err := disk.ReadAt(t.header, place); err != nil {
		return nil, fmt.Errorf("read its header: %w", err)
	}
	h := t.header
	n, size := binary.LittleEndian.Uint32(h[80:]), binary.LittleEndian.Uint32(h[84:])
	switch {
	case !bytes.Equal(h[:8], gptSignature):
		return nil, errors.New("it has no signature")
	case binary.LittleEndian.Uint32(h[12:]) != headerSize || size != entrySize || n == 0 || n > maxPartitions:
		return nil, errors.New("its form is not the usual one")
	case headerSum(h) != binary.LittleEndian.Uint32(h[16:]):
		return nil, errors.New("its header is damaged")
	case t.at() != place:
		return nil, errors.New("its header is that of another place")
	}
	t.entries = make([]byte, int(n)*entrySize)
	if _, err := disk.ReadAt(t.entries, t.array()); err != nil {
		return nil, fmt.Errorf("read its entries: %w", err)
	}
	if crc32.ChecksumIEEE(t.entries) != binary.LittleEndian.Uint32(h[88:]) {
		return nil, errors.New("its entries are damaged")
	}
	return t, nil
}

// headerSum is the CRC of a header with the field of the CRC as zero.
func headerSum(header []byte) uint32 {
	h := bytes.Clone(header[:headerSize])
	clear(h[16:20])
	return crc32.ChecksumIEEE(h)
}

// readTables returns the copies that are whole; at least one of them.
func readTables(disk io.ReaderAt, size int64) (primary, backup *table, err error) {
	var first error
	for _, sector := range []int64{512, 4096} {
		p, perr := readTable(disk, sector, sector)
		place := size - sector // where the backup belongs when nobody says otherwise
		if p != nil {
			place = p.backup()
		}
		b, berr := readTable(disk, place, sector)
		if p != nil || b != nil {
			return p, b, nil
		}
		if first == nil {
			first = fmt.Errorf("primary copy: %w; backup copy: %w", perr, berr)
		}
	}
	return nil, nil, fmt.Errorf("read the partition table: %w", first)
}

// Partitions reads the partition table of a disk of so many bytes: the primary
// copy, or the backup when a power cut has torn the primary.
func Partitions(disk io.ReaderAt, size int64) ([]Partition, error) {
	p, b, err := readTables(disk, size)
	if err != nil {
		return nil, err
	}
	if p == nil {
		p = b
	}
	return p.partitions(), nil
}

func (t *table) partitions() []Partition {
	var out []Partition
	for i := range len(t.entries) / entrySize {
		e := t.entries[i*entrySize : (i+1)*entrySize]
		if bytes.Equal(e[:16], make([]byte, 16)) { // no type: not in use
			continue
		}
		first, last := int64(binary.LittleEndian.Uint64(e[32:])), int64(binary.LittleEndian.Uint64(e[40:]))
		name := make([]uint16, 0, 36)
		for j := 56; j < entrySize && (e[j] != 0 || e[j+1] != 0); j += 2 {
			name = append(name, binary.LittleEndian.Uint16(e[j:]))
		}
		out = append(out, Partition{
			Number: i + 1, Label: string(utf16.Decode(name)), UUID: UUID(e[16:32]).swapped(),
			Start: first * t.sector, Size: (last - first + 1) * t.sector,
		})
	}
	return out
}

// setUUID gives a partition another UUID in this copy, in memory.
func (t *table) setUUID(number int, u UUID) error {
	if number < 1 || number > len(t.entries)/entrySize {
		return fmt.Errorf("there is no partition %d", number)
	}
	at := (number-1)*entrySize + 16
	s := u.swapped()
	copy(t.entries[at:at+16], s[:])
	binary.LittleEndian.PutUint32(t.header[88:], crc32.ChecksumIEEE(t.entries))
	binary.LittleEndian.PutUint32(t.header[16:], headerSum(t.header))
	return nil
}

// write puts this copy on the disk and syncs it.
func (t *table) write(disk File) error {
	if _, err := disk.WriteAt(t.entries, t.array()); err != nil {
		return err
	}
	if _, err := disk.WriteAt(t.header, t.at()); err != nil {
		return err
	}
	return disk.Sync()
}

// setUUID gives a partition another UUID. One copy of the table is whole at
// every moment: the one that the kernel uses is written after the other was
// synced. A disk whose primary copy is torn gets it back first.
func setUUID(disk File, number int, u UUID) error {
	size, err := disk.Size()
	if err != nil {
		return fmt.Errorf("set the UUID of partition %d: %w", number, err)
	}
	primary, backup, err := readTables(disk, size)
	if err != nil {
		return fmt.Errorf("set the UUID of partition %d: %w", number, err)
	}
	// The kernel uses the primary when it is whole; what it uses is written last.
	used, other := primary, backup
	if primary == nil {
		used, other = backup, nil
	}
	for _, t := range []*table{used.mirror(other), used} {
		if err := t.setUUID(number, u); err != nil {
			return fmt.Errorf("set the UUID of partition %d: %w", number, err)
		}
		if err := t.write(disk); err != nil {
			return fmt.Errorf("write the partition table: %w", err)
		}
	}
	return nil
}

// mirror makes the other copy of t: the same entries, with the places exchanged.
// known is the other copy as it is on the disk, nil when it is not whole.
func (t *table) mirror(known *table) *table {
	m := &table{header: bytes.Clone(t.header), entries: bytes.Clone(t.entries), sector: t.sector}
	own, other := binary.LittleEndian.Uint64(t.header[24:]), binary.LittleEndian.Uint64(t.header[32:])
	binary.LittleEndian.PutUint64(m.header[24:], other)
	binary.LittleEndian.PutUint64(m.header[32:], own)
	// The primary's entries follow its header, the backup's come before its own.
	array := uint64(2)
	switch {
	case known != nil:
		array = binary.LittleEndian.Uint64(known.header[72:])
	case own < other:
		array = other - uint64((int64(len(t.entries))+t.sector-1)/t.sector)
	}
	binary.LittleEndian.PutUint64(m.header[72:], array)
	return m
}
