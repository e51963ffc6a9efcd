package install

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// id is what its maker gave a disk to be told by; "" where it has nothing of the kind.
func (d Disk) id() string { return strings.TrimSpace(d.WWN + " " + d.Serial) }

// nameTwins notes which disks that can be taken a person cannot tell from each other:
// those of one model and size that have no number, or, as cheap adapters do, the same.
func nameTwins(disks []Disk) {
	for i, d := range disks {
		for _, other := range disks {
			if d.Refused == "" && other.Refused == "" && d.Path != other.Path && d.id() == other.id() && d.Model == other.Model && d.Size == other.Size {
				disks[i].Twins = append(disks[i].Twins, other.Path)
			}
		}
	}
}

// ErrChanged says that a disk is not what it was when a person chose it.
var ErrChanged = errors.New("it has changed since it was chosen")

// same compares a disk with what is at its path later.
func (d Disk) same(now Disk) error {
	for _, f := range []struct{ what, was, is string }{
		{"WWN", d.WWN, now.WWN}, {"serial number", d.Serial, now.Serial}, {"model", d.Model, now.Model},
		{"size", gigabytes(d.Size), gigabytes(now.Size)}, {"place", d.Place, now.Place}, {"content", d.Content, now.Content},
	} {
		if f.was != f.is {
			return fmt.Errorf("%w: its %s was %q and is %q", ErrChanged, f.what, f.was, f.is)
		}
	}
	if d.seq != now.seq || d.Size != now.Size {
		return fmt.Errorf("%w: it was plugged in again, or is another one", ErrChanged)
	}
	return nil
}

// Find returns the disk that a person means: by its path or the end of it ("sda"), any
// of its links below /dev/disk or the name of one by-id, its WWN, its serial number, or
// model and serial number. real returns a path without symbolic links. A name that
// means several disks, or none, is an error that says so.
func Find(disks []Disk, name string, real func(path string) (string, error)) (Disk, error) {
	name = strings.TrimSpace(name)
	if name == "" {
		return Disk{}, errors.New("no disk was named")
	}
	path := ""
	for _, p := range []string{name, "/dev/" + name, "/dev/disk/by-id/" + name} {
		if !strings.HasPrefix(p, "/") {
			continue
		}
		if found, err := real(p); err == nil {
			path = found
			break
		}
	}
	var found []Disk
	for _, d := range disks {
		if d.Path == path || path == "" && slices.Contains(d.numbers(), plain(name)) {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return Disk{}, fmt.Errorf("%s means %s and %s: name one by its path", name, found[0].Path, found[1].Path)
	case path == "":
		return Disk{}, fmt.Errorf("there is no disk %s", name)
	}
	for _, d := range disks {
		if isPartition(d.Path, path) {
			return Disk{}, fmt.Errorf("%s is not a whole disk: the one it is on is %s", path, d.Path)
		}
	}
	return Disk{}, fmt.Errorf("%s is not a disk", path)
}

// numbers are the names that its maker gave a disk.
func (d Disk) numbers() []string {
	var out []string
	for _, n := range []string{d.WWN, d.Serial} {
		if n != "" {
			out = append(out, plain(n))
		}
	}
	if d.Model != "" && d.Serial != "" {
		out = append(out, plain(d.Model+" "+d.Serial))
	}
	return out
}

// plain is a name without what people and udev write in different ways.
func plain(name string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == ' ' || r == '_' || r == '-' }), " ")
}

// isPartition says whether the kernel would call a partition of the disk so.
func isPartition(disk, path string) bool {
	number, ok := strings.CutPrefix(path, disk)
	if last := disk[len(disk)-1]; last >= '0' && last <= '9' {
		number, ok = strings.CutPrefix(path, disk+"p")
	}
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}
