package slots

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
)

// Entry is a UKI of ours in EFI/Linux.
type Entry struct {
	File       string // its name
	Generation uint64 // only ever grows: the highest that has tries left boots
	Counted    bool   // it is on trial: systemd-boot counts its boots
	Left, Done int    // tries, when Counted
	// RootHash is the system that it starts, from its command line. Empty: it is
	// not whole, and systemd-boot passes it over.
	RootHash string
}

// Tries is how often a new system may try before it has failed.
const Tries = 3

// entryName is kairos-GENERATION[+LEFT[-DONE]].efi (Boot Loader Specification, boot counting).
var entryName = regexp.MustCompile(`^kairos-([0-9]{6,18})(\+([0-9]{1,4})(-([0-9]{1,4}))?)?\.efi$`)

// ParseEntry reads a file name in EFI/Linux; false: it is not one of ours.
func ParseEntry(name string) (Entry, bool) {
	m := entryName.FindStringSubmatch(name)
	if m == nil {
		return Entry{}, false
	}
	e := Entry{File: name, Counted: m[2] != ""}
	var err error
	if e.Generation, err = strconv.ParseUint(m[1], 10, 64); err != nil {
		return Entry{}, false
	}
	e.Left, e.Done = number(m[3]), number(m[5])
	return e, true
}

// number reads digits that the pattern has bounded; none are 0.
func number(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}

// FileName returns the name of a UKI. tries 0: its boots are not counted.
func FileName(generation uint64, tries int) string {
	if tries == 0 {
		return fmt.Sprintf("kairos-%06d.efi", generation)
	}
	return fmt.Sprintf("kairos-%06d+%d.efi", generation, tries)
}

// Exhausted reports whether it has no tries left: systemd-boot takes it only
// when there is nothing else.
func (e Entry) Exhausted() bool { return e.Counted && e.Left == 0 }

// Compare orders entries as systemd-boot does: what it would boot comes first.
func Compare(a, b Entry) int {
	if a.Exhausted() != b.Exhausted() {
		if a.Exhausted() {
			return 1
		}
		return -1
	}
	return cmp.Or(cmp.Compare(b.Generation, a.Generation), cmp.Compare(b.File, a.File))
}
