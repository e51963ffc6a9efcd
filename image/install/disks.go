package install

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Disk is a whole disk of this machine.
type Disk struct {
	Path    string   // "/dev/vda"
	Size    int64    // bytes
	Model   string   // what its maker calls it; may be empty
	Serial  string   // its maker's number; may be empty
	WWN     string   // its number in the world; may be empty
	Bus     string   // "usb", "nvme", "virtio"; may be empty
	Place   string   // where it is plugged in, as udev's by-path says; may be empty
	Content string   // what is on it, for a person; "" for nothing
	Refused string   // why nothing can be installed on it; "" for no reason
	Warning string   // why it may be too small; "" for no reason
	Twins   []string // paths of others that nothing but place and path tells from it

	seq string // of the kernel: another each time that a disk is plugged in
}

// Name is the short one of a disk's names: its path without /dev/.
func (d Disk) Name() string { return strings.TrimPrefix(d.Path, "/dev/") }

// String is the disk in one line, without its content.
func (d Disk) String() string {
	words := []string{d.Path, gigabytes(d.Size)}
	for _, word := range []string{d.Model, d.Serial} {
		if word != "" {
			words = append(words, word)
		}
	}
	if d.Bus != "" {
		words = append(words, "("+d.Bus+")")
	}
	if len(d.Twins) > 0 {
		like := "looks like " + strings.Join(d.Twins, ", ")
		if d.Place != "" {
			like += ", and is at " + d.Place
		}
		words = append(words, like)
	}
	return strings.Join(words, "  ")
}

func gigabytes(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// Columns are what a Listing needs of `lsblk --json --bytes`.
const Columns = "PATH,TYPE,SIZE,RO,MODEL,SERIAL,WWN,TRAN,FSTYPE,LABEL,PARTLABEL,MOUNTPOINTS"

// Listing is what a machine says of its block devices.
type Listing struct {
	Lsblk  []byte            // JSON, with Columns
	Places map[string]string // path of a disk -> its name in /dev/disk/by-path
	Seqs   map[string]string // path of a disk -> the kernel's diskseq
}

// node is a block device in lsblk's JSON.
type node struct {
	Path, Type               string
	Size                     int64
	RO                       bool
	Model, Tran, Serial, WWN string
	FSType, Label, PartLabel string
	Mountpoints              []string
	Children                 []node
}

// Volumes are the file systems that carry a label, in any case: their devices.
func (l Listing) Volumes(label string) ([]string, error) {
	nodes, err := parse(l.Lsblk)
	if err != nil {
		return nil, err
	}
	var out []string
	var walk func([]node)
	walk = func(list []node) {
		for _, n := range list {
			if strings.EqualFold(n.Label, label) && !slices.Contains(out, n.Path) {
				out = append(out, n.Path)
			}
			walk(n.Children)
		}
	}
	walk(nodes)
	return out, nil
}

// Limits say which disks cannot be taken whatever is on them.
type Limits struct {
	Running string // the disk of the running system, "/dev/sda"; "" for none
	Size    int64  // bytes that are needed
}

// ForKubernetes is how much larger than a system that runs no pods a disk should be, in
// bytes: the data of a node without any take 300 MiB, and the kubelet removes images and
// pods when a tenth of the file system is left. The initrd's boot.sh warns by it, too.
const ForKubernetes = 4 << 30

// Disks are the whole disks of the listing, those that can be installed on first.
func (l Listing) Disks(limits Limits) ([]Disk, error) {
	nodes, err := parse(l.Lsblk)
	if err != nil {
		return nil, err
	}
	var out []Disk
	for _, n := range nodes {
		if n.Type != "disk" || n.Size == 0 || strings.HasPrefix(n.Path, "/dev/zram") || strings.HasPrefix(n.Path, "/dev/fd") {
			continue
		}
		d := Disk{Path: n.Path, Size: n.Size, Model: printable(n.Model), Serial: printable(n.Serial), WWN: printable(n.WWN),
			Bus: printable(n.Tran), Place: printable(l.Places[n.Path]), Content: content(n), seq: l.Seqs[n.Path]}
		d.Refused = refuse(n, limits)
		if full := limits.Size + ForKubernetes; limits.Size > 0 && d.Refused == "" && n.Size < full {
			d.Warning = fmt.Sprintf("it is small for Kubernetes: with %s, images and pods have room", gigabytes(full))
		}
		out = append(out, d)
	}
	nameTwins(out)
	slices.SortStableFunc(out, func(a, b Disk) int {
		switch {
		case (a.Refused == "") == (b.Refused == ""):
			return strings.Compare(a.Path, b.Path)
		case a.Refused == "":
			return -1
		}
		return 1
	})
	return out, nil
}

func parse(lsblk []byte) ([]node, error) {
	var list struct{ Blockdevices []node }
	if err := json.Unmarshal(lsblk, &list); err != nil {
		return nil, fmt.Errorf("read what lsblk says: %w", err)
	}
	return list.Blockdevices, nil
}

func refuse(n node, l Limits) string {
	switch {
	case n.Path == l.Running:
		return "this system runs from it"
	case n.RO:
		return "it is read-only"
	case n.Size < l.Size:
		return "it has " + gigabytes(n.Size) + ", " + gigabytes(l.Size) + " are needed"
	}
	return inUse(n)
}

// inUse looks for what would be pulled away from under somebody.
func inUse(n node) string {
	for _, m := range n.Mountpoints {
		switch m {
		case "":
		case "[SWAP]":
			return n.Path + " is swap in use"
		default:
			return n.Path + " is mounted at " + printable(m)
		}
	}
	for _, c := range n.Children {
		if c.Type != "part" {
			return fmt.Sprintf("%s is in use by %s (%s)", n.Path, c.Path, c.Type)
		}
		if why := inUse(c); why != "" {
			return why
		}
	}
	return ""
}

// content says what would be lost.
func content(n node) string {
	if len(n.Children) == 0 {
		return filesystem(n)
	}
	var parts []string
	for _, c := range n.Children {
		name := filesystem(c)
		if name == "" {
			name = "unknown"
		}
		parts = append(parts, name)
	}
	const most = 6
	more := ""
	if len(parts) > most {
		more = fmt.Sprintf(" and %d more", len(parts)-most)
		parts = parts[:most]
	}
	return fmt.Sprintf("%d partitions: %s%s", len(n.Children), strings.Join(parts, ", "), more)
}

func filesystem(n node) string {
	name := n.Label
	if name == "" {
		name = n.PartLabel
	}
	return strings.TrimSpace(printable(n.FSType + " " + name))
}

// printable drops what could steer a terminal: labels are a stranger's text.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return -1
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}
