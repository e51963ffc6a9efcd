package slots

import (
	"errors"
	"fmt"
	"time"

	"github.com/kairos-io/kairos/image/release"
)

// Part is one of the pieces of a release that a machine keeps.
type Part string

// The parts.
const (
	Root   Part = "root"
	Verity Part = "verity"
	Kernel Part = "uki"
)

// Piece is what is known of a part before it is fetched.
type Piece struct {
	Size   int64  // bytes
	Digest string // "sha256:..."; "" when it is not known
}

// Release is what is to be written to a slot.
type Release struct {
	Image, Digest string    // where it came from, for slots.json
	At            time.Time // by the wall clock, for slots.json
	Config        release.Config
	Pieces        map[Part]Piece
}

// Op is a kind of step.
type Op string

// The kinds of steps, with what they do to the disk. Each is durable when it is done.
const (
	OpSweep  Op = "sweep"  // remove File, which fsck has found, from the ESP's root
	OpDrop   Op = "drop"   // make File no program any more, then remove it
	OpKernel Op = "kernel" // write the UKI as File, but for its first sector
	OpCopy   Op = "copy"   // the same, from the file From
	OpWrite  Op = "write"  // write Part to the slot's partition
	OpName   Op = "name"   // give the partition of Part the UUID that its system asks for
	OpVerify Op = "verify" // read root and hash tree back and compare them with the root hash
	OpRecord Op = "record" // write slots.json
	OpEnter  Op = "enter"  // write the first sector of File: from here on it boots
)

// Step is one step of a plan.
type Step struct {
	Op   Op
	File string // in EFI/Linux; OpSweep: in the root of the ESP
	From string // OpCopy
	Part Part   // OpWrite, OpName
}

// Plan is what is to be done to the disk, in this order.
type Plan struct {
	Steps    []Step
	Slot     View // that changes
	RootHash string
	Records  Records // as they are afterwards
}

// Errors of plans.
var (
	ErrCurrent = errors.New("it is the running system")
	ErrTrial   = errors.New("the running system is on trial: it is not yet known to be good, and the other slot is the way back")
	ErrNothing = errors.New("there is no system to go back to")
)

// PlanUpgrade writes a release to the slot that is not booted.
//
//  1. Remains of an earlier try are dropped, and what fsck has made of them:
//     they are nothing that boots, and take room.
//  2. The new UKI is written and checked while everything else is as it was: an
//     image that is refused here costs nothing. It is no program yet.
//  3. What boots the other slot is dropped, so that nothing leads to a slot that
//     is half one system and half another. From here on the running system is
//     the only one.
//  4. Root and hash tree are written. Each partition gets its new UUID after its
//     content was synced: a UUID says that the content is whole.
//  5. Both are read back from the disk and compared with the root hash: a disk
//     that lies is found out now and not at the next boot.
//  6. slots.json, before the step that makes it true, so that a system that
//     boots always has its name.
//  7. The UKI's first sector: one write that happens or does not.
func PlanUpgrade(f Facts, rel Release) (Plan, error) {
	st, err := Inspect(f)
	if err != nil {
		return Plan{}, err
	}
	switch {
	case st.Booted.RootHash == rel.Config.RootHash:
		return Plan{}, ErrCurrent // two partitions with one UUID could not be told apart
	case st.Booted.Entry == nil:
		return Plan{}, fmt.Errorf("%w: the ESP has no UKI for the running system, so that a failed upgrade would leave nothing to boot", ErrLayout)
	case st.Trial():
		return Plan{}, ErrTrial
	}
	return planWrite(f, st.Other, write{rel, st.Booted.Entry.File, Tries})
}

// PlanInstall writes a release to slot a of a disk that holds no system yet. Its
// boots are not counted: there is nothing to go back to.
func PlanInstall(f Facts, rel Release) (Plan, error) {
	v, err := inspectSlot(f, A)
	if err != nil {
		return Plan{}, err
	}
	return planWrite(f, v, write{rel, "", 0})
}

// write is what planWrite is to write.
type write struct {
	rel   Release
	keep  string // the UKI that stays
	tries int
}

func planWrite(f Facts, to View, w write) (Plan, error) {
	if err := fits(to, w.rel); err != nil {
		return Plan{}, err
	}
	generation := nextGeneration(f)
	p := Plan{Slot: to, RootHash: w.rel.Config.RootHash, Records: f.Records.With(to.Slot, &Record{
		Image: w.rel.Image, Digest: w.rel.Digest, Version: w.rel.Config.Version, Flavour: w.rel.Config.Flavour, K3s: w.rel.Config.K3s,
		RootHash: w.rel.Config.RootHash, Created: w.rel.Config.Created, Generation: generation, StagedAt: w.rel.At,
	})}
	file := FileName(generation, w.tries)
	p.Steps = remains(f)
	p.Steps = append(p.Steps, Step{Op: OpKernel, File: file})
	p.Steps = append(p.Steps, dropAll(f.Entries, func(e Entry) bool { return e.RootHash != "" && e.File != w.keep })...)
	for _, part := range []Part{Root, Verity} {
		p.Steps = append(p.Steps, Step{Op: OpWrite, Part: part}, Step{Op: OpName, Part: part})
	}
	p.Steps = append(p.Steps, Step{Op: OpVerify}, Step{Op: OpRecord}, Step{Op: OpEnter, File: file})
	return p, nil
}

// remains are the files on the ESP that are good for nothing.
func remains(f Facts) []Step {
	var steps []Step
	for _, name := range f.Lost {
		steps = append(steps, Step{Op: OpSweep, File: name})
	}
	return append(steps, dropAll(f.Entries, func(e Entry) bool { return e.RootHash == "" })...)
}

func dropAll(entries []Entry, which func(Entry) bool) []Step {
	var steps []Step
	for _, e := range entries {
		if which(e) {
			steps = append(steps, Step{Op: OpDrop, File: e.File})
		}
	}
	return steps
}

// fits compares a release with the partitions, which on an old machine may be
// smaller than what this version makes.
func fits(to View, rel Release) error {
	for part, where := range map[Part]Partition{Root: to.Root, Verity: to.Verity} {
		if n := rel.Pieces[part].Size; n > where.Size {
			return fmt.Errorf("the %s of the release has %d bytes, its partition %s only %d", part, n, where.Label, where.Size)
		}
	}
	return nil
}

// PlanRollback makes the other slot the one that boots next. The UKI is written
// again under the newest generation instead of renamed, and the old name dropped
// at last, because a rename on FAT may be torn. Its boots are not counted: that
// system was good before, and whoever goes back wants to stay there.
func PlanRollback(f Facts) (Plan, error) {
	st, err := Inspect(f)
	if err != nil {
		return Plan{}, err
	}
	if st.Other.State != Rollback {
		return Plan{}, fmt.Errorf("%w: the other slot is %s", ErrNothing, st.Other.State)
	}
	generation := nextGeneration(f)
	records := f.Records
	if r := records.Of(st.Other.Slot); r != nil {
		again := *r
		again.Generation = generation
		records = records.With(st.Other.Slot, &again)
	}
	file := FileName(generation, 0)
	steps := append(remains(f), Step{Op: OpCopy, From: st.Other.Entry.File, File: file}, Step{Op: OpRecord}, Step{Op: OpEnter, File: file})
	steps = append(steps, dropAll(f.Entries, func(e Entry) bool { return e.RootHash == st.Other.RootHash })...)
	return Plan{Steps: steps, Slot: st.Other, RootHash: st.Other.RootHash, Records: records}, nil
}

// PlanUnstage drops a system that was staged and has not been booted to the end:
// the running one stays.
func PlanUnstage(f Facts) (Plan, error) {
	st, err := Inspect(f)
	if err != nil {
		return Plan{}, err
	}
	if st.Other.State != Staged {
		return Plan{}, fmt.Errorf("nothing is staged: the other slot is %s", st.Other.State)
	}
	steps := dropAll(f.Entries, func(e Entry) bool { return e.RootHash == st.Other.RootHash })
	steps = append(steps, Step{Op: OpRecord})
	return Plan{Steps: steps, Slot: st.Other, RootHash: st.Other.RootHash, Records: f.Records.With(st.Other.Slot, nil)}, nil
}
