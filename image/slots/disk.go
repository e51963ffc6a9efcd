package slots

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// File is a device, a partition or a file on the ESP. Writes are durable after Sync.
type File interface {
	io.ReaderAt
	io.WriterAt
	Sync() error // what is read afterwards comes from the disk
	Size() (int64, error)
	Close() error
}

// Mode says what a file is opened for. A disk that was opened for writing is
// looked at again by udev when it is closed, so that reading must not do it.
type Mode bool

// The modes.
const (
	Read  Mode = false
	Write Mode = true
)

// Disk is a machine's disk.
type Disk interface {
	// Table opens the whole device, for its partition table.
	Table(mode Mode) (File, error)
	// Open opens a partition.
	Open(p Partition, mode Mode) (File, error)
}

// ESP is the EFI system partition, with names as slash-separated paths.
// Creations and removals are durable after SyncDir.
type ESP interface {
	List(dir string) ([]string, error)         // names of files
	Open(name string, mode Mode) (File, error) // an existing file; fs.ErrNotExist
	Create(name string) (File, error)          // a new file; fs.ErrExist
	Remove(name string) error                  // a file
	SyncDir(dir string) error
}

// Places on the ESP.
const (
	entriesDir = "EFI/Linux"
	recordsDir = "kairos"
)

// ReadFacts looks at the disk. rootHash is that of the running system, "" for a
// disk that no system runs from.
func ReadFacts(disk Disk, esp ESP, rootHash string) (Facts, error) {
	f := Facts{RootHash: rootHash}
	var err error
	if f.Partitions, err = readPartitions(disk); err != nil {
		return Facts{}, err
	}
	if f.Entries, err = readEntries(esp); err != nil {
		return Facts{}, fmt.Errorf("read the ESP: %w", err)
	}
	if f.Lost, err = readLost(esp); err != nil {
		return Facts{}, fmt.Errorf("read the ESP: %w", err)
	}
	f.Records, err = ReadRecords(esp)
	return f, err
}

// lostName is how fsck.fat calls what belonged to no file: a power cut while a
// UKI is written leaves one the size of a UKI, and the ESP has room for few.
var lostName = regexp.MustCompile(`^FSCK[0-9]{4}\.REC$`)

func readLost(esp ESP) ([]string, error) {
	names, err := esp.List(".")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return slices.DeleteFunc(names, func(name string) bool { return !lostName.MatchString(strings.ToUpper(name)) }), nil
}

func readPartitions(disk Disk) ([]Partition, error) {
	t, err := disk.Table(Read)
	if err != nil {
		return nil, fmt.Errorf("open the disk: %w", err)
	}
	size, err := t.Size()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the size of the disk: %w", err), t.Close())
	}
	parts, err := Partitions(t, size)
	return parts, errors.Join(err, t.Close())
}

func readEntries(esp ESP) ([]Entry, error) {
	names, err := esp.List(entriesDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Entry
	for _, name := range names {
		e, ok := ParseEntry(name)
		if !ok {
			continue
		}
		f, err := esp.Open(entriesDir+"/"+name, Read)
		if err != nil {
			return nil, err
		}
		u, err := ReadUKI(f)
		if err == nil {
			e.RootHash = u.RootHash
		} else if !errors.Is(err, errNotUKI) {
			return nil, errors.Join(fmt.Errorf("read %s: %w", name, err), f.Close())
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// each calls use with an open file and closes it, whatever happened.
func each(open func() (File, error), use func(File) error) error {
	f, err := open()
	if err != nil {
		return err
	}
	return errors.Join(use(f), f.Close())
}

// Source gives the content of a release.
type Source interface {
	// Fetch streams a part into write, which it calls again, with the part from
	// its beginning, when a transfer has to be repeated. The reader fails instead
	// of ending when the content is not what the release promised.
	Fetch(ctx context.Context, part Part, write func(io.Reader) error) error
}
