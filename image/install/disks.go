package install

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Disk is a whole disk of this machine.
type Disk struct {
	Path    string // "/dev/vda"
	Size    int64  // bytes
	Model   string // what its maker calls it; may be empty
	Bus     string // "usb", "nvme", "virtio"; may be empty
	Content string // what is on it, for a person; "" for nothing
	Refused string // why nothing can be installed on it; "" for no reason
}

// Name is what a person types to name the disk: its path without /dev/.
func (d Disk) Name() string { return strings.TrimPrefix(d.Path, "/dev/") }

// String is the disk in one line, without its content.
func (d Disk) String() string {
	words := []string{d.Path, gigabytes(d.Size)}
	if d.Model != "" {
		words = append(words, d.Model)
	}
	if d.Bus != "" {
		words = append(words, "("+d.Bus+")")
	}
	return strings.Join(words, "  ")
}

func gigabytes(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// Columns are what ParseDisks reads of `lsblk --json --bytes`.
const Columns = "PATH,TYPE,SIZE,RO,MODEL,TRAN,FSTYPE,LABEL,PARTLABEL,MOUNTPOINTS"

// node is a block device in lsblk's JSON.
type node struct {
	Path, Type               string
	Size                     int64
	RO                       bool
	Model, Tran              string
	FSType, Label, PartLabel string
	Mountpoints              []string
	Children                 []node
}

// Volumes are the file systems that carry a label, in any case: their devices.
func Volumes(lsblk []byte, label string) ([]string, error) {
	nodes, err := parse(lsblk)
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

// ParseDisks makes a list of the disks out of what lsblk says, those that can
// be installed on first.
func ParseDisks(lsblk []byte, l Limits) ([]Disk, error) {
	nodes, err := parse(lsblk)
	if err != nil {
		return nil, err
	}
	var out []Disk
	for _, n := range nodes {
		if n.Type != "disk" || n.Size == 0 || strings.HasPrefix(n.Path, "/dev/zram") || strings.HasPrefix(n.Path, "/dev/fd") {
			continue
		}
		d := Disk{Path: n.Path, Size: n.Size, Model: printable(n.Model), Bus: printable(n.Tran), Content: content(n)}
		d.Refused = refuse(n, l)
		out = append(out, d)
	}
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
