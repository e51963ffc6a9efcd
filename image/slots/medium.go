package slots

import (
	"context"
	"fmt"
	"io"

	"github.com/kairos-io/kairos/image/release"
)

// Medium is the Source of a system that is on another disk already: the medium
// that an installer runs from. Its content is not known by digest; the root hash
// vouches for root and hash tree, and through its command line the UKI belongs to them.
type Medium struct {
	disk  Disk
	esp   ESP
	view  View
	sizes map[Part]Piece
}

// OpenMedium finds the system with this root hash on a disk and says what it is.
func OpenMedium(disk Disk, esp ESP, rootHash string) (*Medium, Release, error) {
	f, err := ReadFacts(disk, esp, rootHash)
	if err != nil {
		return nil, Release{}, fmt.Errorf("read the medium: %w", err)
	}
	for _, s := range []Slot{A, B} {
		v, err := inspectSlot(f, s)
		if err != nil || v.RootHash != rootHash || v.Entry == nil {
			continue
		}
		m := &Medium{disk: disk, esp: esp, view: v}
		rel, err := m.release()
		if err != nil {
			return nil, Release{}, fmt.Errorf("read the medium: %w", err)
		}
		m.sizes = rel.Pieces
		return m, rel, nil
	}
	return nil, Release{}, fmt.Errorf("read the medium: %w: it has no slot with the running system", ErrLayout)
}

func (m *Medium) release() (Release, error) {
	rel := Release{Config: release.Config{RootHash: m.view.RootHash}, Pieces: map[Part]Piece{}}
	err := each(func() (File, error) { return m.disk.Open(m.view.Verity, Read) }, func(f File) error {
		tree, err := ReadTree(f)
		rel.Pieces[Root], rel.Pieces[Verity] = Piece{Size: tree.Blocks * block}, Piece{Size: tree.Size()}
		return err
	})
	if err != nil {
		return Release{}, err
	}
	err = each(m.kernel, func(f File) error {
		size, err := f.Size()
		if err != nil {
			return err
		}
		rel.Pieces[Kernel] = Piece{Size: size}
		u, err := ReadUKI(f)
		rel.Config.Arch = u.Arch
		return err
	})
	if r := m.view.Record; r != nil {
		rel.Image, rel.Digest, rel.Config.Version, rel.Config.Flavour = r.Image, r.Digest, r.Version, r.Flavour
		rel.Config.Created = r.Created
	}
	return rel, err
}

func (m *Medium) kernel() (File, error) { return m.esp.Open(entriesDir+"/"+m.view.Entry.File, Read) }

// Fetch implements Source.
func (m *Medium) Fetch(_ context.Context, part Part, write func(io.Reader) error) error {
	open := m.kernel
	switch part {
	case Root:
		open = func() (File, error) { return m.disk.Open(m.view.Root, Read) }
	case Verity:
		open = func() (File, error) { return m.disk.Open(m.view.Verity, Read) }
	}
	return each(open, func(f File) error {
		return write(io.NewSectionReader(f, 0, m.sizes[part].Size))
	})
}
